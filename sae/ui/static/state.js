// What is on screen, in one place. `code` and `value` are replaced whole with every new picture.

const state = {
  value: null, code: null,
  patches: new Set(), hover: -1, dragged: null,
  concept: null, preview: -1,
  rank: props.setup.rank, scale: "dataset", opacity: 0.8,
  showAll: false, showDense: false, ranked: { slots: [], amounts: {} },
};
