// Patience with a busy server: what it turns away for a moment is asked again, and whoever waits long
// is told the place in the queue. Knows HTTP and Gradio's messages, and nothing of what is asked.

const LONGEST_MS = 300000;
const TOLD_AFTER_MS = 3000;
const ASKED = /\/gradio_api\/(queue\/join|component_server|upload)\b/;
const TOLD = /\/gradio_api\/queue\/data\b/;
const fetchOnce = window.fetch.bind(window);
const places = new Map();
let retrying = 0;
let box = null;

function show(sentence) {
  if (!box) {
    box = document.createElement("p");
    box.className = "pl-crowded";
    box.setAttribute("role", "status");
    document.body.append(box);
  }
  box.textContent = sentence;
  box.hidden = !sentence;
}

function tell() {
  const longest = [...places.values()].find(({ since }) => performance.now() - since >= TOLD_AFTER_MS);
  if (longest) {
    const { ahead, seconds } = longest;
    const rest = seconds ? `, about ${Math.max(1, Math.round(seconds))} s` : "";
    show(`Many questions are being answered: yours is number ${ahead + 1} in the queue${rest}.`);
  } else if (retrying) {
    show("The server is busy. Your question is asked again by itself in a few seconds.");
  } else if (box) {
    show("");
  }
}

async function fetchPatiently(input, init) {
  const start = performance.now();
  for (;;) {
    const answer = await fetchOnce(input instanceof Request ? input.clone() : input, init);
    const seconds = Number(answer.headers.get("Retry-After"));
    const again = (answer.status === 503 || answer.status === 429) && seconds > 0;
    if (!again || performance.now() - start > LONGEST_MS) return answer;
    retrying++;
    tell();
    await new Promise((go) => setTimeout(go, 1000 * seconds));
    retrying--;
    tell();
  }
}

// One of Gradio's messages about a question that waits.
export function hear(message) {
  const { msg, event_id: id, rank, rank_eta: seconds } = message;
  if (msg === "estimation" && rank > 0) {
    if (!places.has(id)) setTimeout(tell, TOLD_AFTER_MS);
    places.set(id, { since: performance.now(), ...places.get(id), ahead: rank, seconds });
  } else if (msg !== "heartbeat") {
    places.delete(id);
  }
  tell();
}

async function listen(answer) {
  const mine = new Set();
  try {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const lines = (text + part.value).split("\n\n");
      text = lines.pop();
      for (const line of lines) {
        const message = JSON.parse(line.slice("data: ".length));
        mine.add(message.event_id);
        hear(message);
      }
    }
  } catch {
    // The connection is closed; whoever asked is told by Gradio.
  }
  for (const id of mine) places.delete(id);
  tell();
}

// From now on every question of the page, whoever asks it.
export function askPatiently() {
  window.fetch = async (input, init) => {
    const address = String(input instanceof Request ? input.url : input);
    if (ASKED.test(address)) return fetchPatiently(input, init);
    const answer = await fetchOnce(input, init);
    if (TOLD.test(address) && answer.ok && answer.body) listen(answer.clone());
    return answer;
  };
}
