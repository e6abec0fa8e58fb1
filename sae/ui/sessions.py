"""What Gradio keeps of every visit: nothing of what it was shown.

Knows how Gradio holds a visit's state. Does not know what the page shows.

Gradio keeps a copy of the whole page for every visit, with the last answer in it and so the visitor's
picture, to make a link to it that this page doesn't offer (`Guard` answers 404 there). The page itself
sends along what a question is about, so the copy is never made.
"""

from typing import Any

from gradio.state_holder import SessionState, StateHolder


class Visit(SessionState):
    """A visit without a copy of the page."""

    def __init__(self, blocks: Any) -> None:
        super().__init__(blocks)
        self.config_values: dict[int, Any] = {}

    def __setitem__(self, key: int, value: Any) -> None:
        super().__setitem__(key, value)
        self.config_values = {}

    def _update_config(self, key: int) -> None:
        """Nothing: there is no copy."""

    def _update_value_in_config(self, key: int, value: Any) -> None:
        """Nothing: there is no copy."""


class Visits(StateHolder):
    """The visits of a page, at most its `state_session_capacity`."""

    def __getitem__(self, session_id: str) -> Visit:
        if session_id not in self.session_data:
            self.session_data[session_id] = Visit(self.blocks)
        return super().__getitem__(session_id)


def hold_nothing(app: Any) -> None:
    """Have a Gradio app that is starting hold its visits so."""
    visits = Visits()
    visits.set_blocks(app.get_blocks())
    app.state_holder = visits
