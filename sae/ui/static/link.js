// The view in the address bar. Python reads links back (sae/ui/links.py); this only writes them.

const LINK_KEYS = ["v", "img", "p", "z", "rank", "scale", "card"];

function patchRanges(patches) {
  const sorted = [...patches].sort((a, b) => a - b), parts = [];
  for (let i = 0; i < sorted.length; i++) {
    let j = i;
    while (j + 1 < sorted.length && sorted[j + 1] === sorted[j] + 1) j++;
    parts.push(j > i + 1 ? sorted[i] + "-" + sorted[j] : sorted.slice(i, j + 1).join(","));
    i = j;
  }
  return parts.join(",");
}

function viewQuery() {
  const kept = [...new URLSearchParams(location.search)].filter(([key]) => !LINK_KEYS.includes(key));
  const pairs = kept.map(([key, text]) => encodeURIComponent(key) + "=" + encodeURIComponent(text));
  pairs.push("v=1");
  const source = state.value.source;
  if (source.link) pairs.push("img=" + source.link);
  if (state.patches.size) pairs.push("p=" + patchRanges(state.patches));
  if (state.concept !== null) pairs.push("z=" + state.concept);
  if (state.rank !== "max") pairs.push("rank=" + state.rank);
  if (state.scale !== "dataset") pairs.push("scale=" + state.scale);
  if (state.card) pairs.push("card=1");
  return "?" + pairs.join("&");
}

function writeLink() {
  if (!state.value) return;
  const query = viewQuery();
  if (query === location.search) return;
  history.replaceState(history.state, "", location.pathname + query + location.hash);
  if (window.parent !== window) {
    window.parent.postMessage({ queryString: query.slice(1) }, "https://huggingface.co");
  }
}

async function copyLink(button) {
  writeLink();
  let copied = false;
  try { await navigator.clipboard.writeText(location.href); copied = true; } catch { copied = copyByHand(); }
  setText(button, copied ? "Copied" : "Copy from the address bar");
  setTimeout(() => setText(button, "Copy link"), 1800);
  if (!state.value.source.link) {
    notice("The link keeps the patches and the concept. Your picture stays with you: it is not part of the link.");
  }
  say(copied ? "Link copied" : "The link is in the address bar");
}

function copyByHand() {
  const field = make("textarea", "pl-hidden-field", "");
  field.value = location.href;
  root.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}
