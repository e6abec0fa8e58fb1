// What the page's components share: the picture in view, the concept card, tabs, the address bar.
// Every component runs this first; whoever is first makes it. Knows nothing of what is on screen.

const bus = window.patchlens || (window.patchlens = (() => {
  const heard = new Map(), waiting = new Map(), receivers = new Map();
  return {
    opened: location.search, // as the visitor came; the components rewrite the address soon after
    picture: null,
    icons: new Map(),
    // Pictures of concepts, asked for once for all tabs; every part that comes is told as "icons".
    async askIcons(server, latents) {
      const missing = latents.filter((id) => id >= 0 && !this.icons.has(id));
      for (const id of missing) this.icons.set(id, "");
      for (let from = 0; from < missing.length; from += 48) {
        const part = missing.slice(from, from + 48);
        try {
          for (const [id, picture] of Object.entries(await server.icons(part))) this.icons.set(Number(id), picture);
        } catch { for (const id of part) this.icons.delete(id); }
        this.emit("icons");
      }
    },
    card: { open() {}, isOpen: () => false, prefetch() {} },
    actions: [],
    on(event, act) { heard.set(event, [...(heard.get(event) || []), act]); },
    emit(event, detail) { for (const act of heard.get(event) || []) act(detail); },
    // A message for a tab that may not have been visited yet: it waits until the tab is there.
    send(tab, message) {
      const receive = receivers.get(tab);
      if (receive) receive(message); else waiting.set(tab, message);
    },
    receive(tab, act) {
      receivers.set(tab, act);
      if (waiting.has(tab)) { const message = waiting.get(tab); waiting.delete(tab); act(message); }
    },
    goTo(tab) {
      const button = document.querySelector('#tabs button[role=tab][data-tab-id="' + tab + '"]');
      if (button && button.getAttribute("aria-selected") !== "true") button.click();
    },
  };
})());
