// The open tab in the address bar: read once, written with every change.

const tabButtons = () => [...document.querySelectorAll("#tabs button[role=tab]")];
const tabOf = (button) => button.dataset.tabId || "";

document.addEventListener("click", (event) => {
  const button = event.target.closest && event.target.closest("#tabs button[role=tab]");
  if (!button || !tabOf(button)) return;
  writeQuery(["tab"], tabOf(button) === props.setup.tabs[0] ? [] : [["tab", tabOf(button)]]);
});

const asked = new URLSearchParams(bus.opened).get("tab");
if (props.setup.tabs.includes(asked)) {
  const open = (tries) => {
    if (tabButtons().length) bus.goTo(asked);
    else if (tries) setTimeout(() => open(tries - 1), 50);
  };
  open(100);
}
