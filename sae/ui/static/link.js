// The address bar: every component owns some keys of the query and leaves the others alone.
// Python reads links back (sae/ui/links.py); this only writes them.

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

// Replace the query's `owned` keys by `pairs`, a list of [key, text that needs no escaping].
function writeQuery(owned, pairs) {
  const kept = [...new URLSearchParams(location.search)].filter(([key]) => !owned.includes(key) && key !== "v");
  const all = kept.map(([key, text]) => encodeURIComponent(key) + "=" + encodeURIComponent(text).replace(/%2C/g, ",").replace(/%3A/g, ":").replace(/%7E/g, "~"));
  const query = "?" + ["v=1", ...all, ...pairs.map(([key, text]) => key + "=" + text)].join("&");
  if (query === location.search) return;
  history.replaceState(history.state, "", location.pathname + query + location.hash);
  if (window.parent !== window) {
    window.parent.postMessage({ queryString: query.slice(1) }, "https://huggingface.co");
  }
}

async function copyLink(button) {
  let copied = false;
  try { await navigator.clipboard.writeText(location.href); copied = true; } catch { copied = copyByHand(); }
  setText(button, copied ? "Copied" : "Copy from the address bar");
  setTimeout(() => setText(button, "Copy link"), 1800);
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
