// What the page's components share: the picture in view, concept icons, the concept card, messages
// between tabs. A module is loaded once a page, so there is one bus. Knows nothing of what is on screen.

import { askPatiently } from "./patience.js";

askPatiently();

const listeners = new Map();
const waiting = new Map();
const receivers = new Map();

const menuButtons = () => [...document.querySelectorAll("#tabs .overflow-dropdown button")];

export const bus = {
  picture: null,
  tabs: [],
  icons: new Map(),
  sendFile: async () => Promise.reject(new Error("the page is still loading")),
  card: { open() {}, isOpen: () => false, prefetch() {} },

  // Pictures of concepts, asked for once for all tabs; every part that comes is told as "icons".
  async askIcons({ server, limits }, latents) {
    const missing = latents.filter((latent) => latent >= 0 && !this.icons.has(latent));
    for (const latent of missing) this.icons.set(latent, "");
    for (let from = 0; from < missing.length; from += limits.icons) {
      await this.askSomeIcons(server, missing.slice(from, from + limits.icons));
      this.emit("icons");
    }
  },

  async askSomeIcons(server, latents) {
    try {
      const answer = await server.ask({ way: "icons", latents });
      for (const [latent, picture] of Object.entries(answer.icons)) {
        this.icons.set(Number(latent), picture);
      }
    } catch {
      for (const latent of latents) this.icons.delete(latent);
    }
  },

  on(event, act) {
    listeners.set(event, [...(listeners.get(event) || []), act]);
  },

  emit(event) {
    for (const act of listeners.get(event) || []) act();
  },

  // A message for a tab that may not have been visited yet: it waits until the tab is there.
  send(tab, message) {
    const receive = receivers.get(tab);
    if (receive) receive(message);
    else waiting.set(tab, message);
  },

  receive(tab, act) {
    receivers.set(tab, act);
    if (!waiting.has(tab)) return;
    const message = waiting.get(tab);
    waiting.delete(tab);
    act(message);
  },

  // The tab that a button opens, "" for another button. Where there is little room Gradio puts the last
  // tabs into a menu, whose buttons have the tabs' labels only.
  tabOf(button) {
    if (button.dataset.tabId) return button.dataset.tabId;
    const labels = [...document.querySelectorAll("#tabs .tab-container[aria-hidden] button")];
    const at = labels.findIndex((one) => one.textContent === button.textContent);
    return menuButtons().includes(button) ? this.tabs[at] : "";
  },

  goTo(tab) {
    const shown = document.querySelector(`#tabs button[role=tab][data-tab-id="${tab}"]`);
    const button = shown || menuButtons().find((one) => this.tabOf(one) === tab);
    if (button && button.getAttribute("aria-selected") !== "true") button.click();
  },
};
