"""Put people's own names, notes and pins into an index: `patchlens notes mine.json --sae DIR`.

Knows the command line; a program, so it may import whatever it needs. Whoever opens the artifact then sees
these names, on the page and in Python; the model's own stay beside them. Several files are joined; where two
say something of one concept, the later one says it. `--save FILE` is the way back.
"""

import argparse
import shutil
import sys
from pathlib import Path

from sae.artifact import CONFIG, SAELENS_CONFIG, WEIGHTS
from sae.concepts.content import FILES, FOLDER
from sae.concepts.index import ConceptIndex
from sae.hub import NAMES, local_folder
from sae.interop.presets import artifact_of
from sae.terminal import command

BESIDE = (SAELENS_CONFIG, "metrics.json", "training.json")


@command
def main(argv: list[str]) -> None:
    """Run the command line `argv`."""
    options = _parser().parse_args(argv)
    if not options.files and options.save is None:
        raise ValueError("nothing to do: give files with notes to put in, or --save FILE")
    index = ConceptIndex.from_pretrained(options.sae)
    before = dict(index.notes)
    for file in options.files:
        index = index.with_notes(file, by_number=options.by_number)
    if options.files:
        out = _folder(options.sae, options.out)
        index.save_pretrained(out)
        new = sum(index.notes[latent] != before.get(latent) for latent in index.notes)
        named = sum(bool(note.name) for note in index.notes.values())
        print(
            f"{out / FOLDER}: {len(index.notes):,} concepts with notes ({named:,} with a name of "
            f"people's own), {new:,} of them new or changed"
        )
    if options.save is not None:
        index.save_notes(options.save)
        print(f"{options.save}: {len(index.notes):,} concepts with notes")


def _folder(sae: str, out: Path | None) -> Path:
    """Where the index goes: into the SAE's own folder, or into `out`, beside a copy of the SAE."""
    if out is None:
        if sae in NAMES or not Path(sae).is_dir():
            raise ValueError(
                f"--sae {sae} is no folder of one's own to write into; say with --out DIR where the "
                "SAE goes together with its index"
            )
        return Path(sae)
    wanted = [CONFIG, WEIGHTS, *(f"{FOLDER}/{name}" for name in FILES)]
    source = local_folder(artifact_of(sae), files=wanted, optional=BESIDE)
    out.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, WEIGHTS, *BESIDE):
        if (source / name).is_file() and not (out / name).exists():
            shutil.copyfile(source / name, out / name)
    return out


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("files", nargs="*", type=Path, metavar="FILE", help="notes, as the page saves them")
    add("--sae", default="bundled", help="artifact: a folder, a Hub id, or 'bundled' (default)")
    add("--out", type=Path, metavar="DIR", help="write a copy of SAE and index there instead")
    add("--save", type=Path, metavar="FILE", help="write the notes of the index into a file")
    add("--by-number", action="store_true", help="take notes on another SAE by their numbers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
