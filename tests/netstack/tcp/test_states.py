"""The table of states: every pair of state and event."""

import pytest

from wgpy.netstack.tcp.states import Event, State, next_state


@pytest.mark.parametrize("state", State)
def test_failure_leads_to_closed_from_everywhere(state):
    assert next_state(state, Event.FAIL) is State.CLOSED


@pytest.mark.parametrize(
    ("events", "end"),
    [
        (("ACTIVE_OPEN", "ESTABLISH", "CLOSE", "FIN_ACKED", "FIN"), State.TIME_WAIT),
        (("ACTIVE_OPEN", "ESTABLISH", "CLOSE", "FIN", "FIN_ACKED"), State.TIME_WAIT),
        (("PASSIVE_OPEN", "ESTABLISH", "FIN", "CLOSE", "FIN_ACKED"), State.CLOSED),
        (("ACTIVE_OPEN", "SYN", "ESTABLISH"), State.ESTABLISHED),
        (("PASSIVE_OPEN", "CLOSE", "ESTABLISH", "FIN_ACKED"), State.FIN_WAIT_2),
    ],
)
def test_the_lives_of_a_connection(events, end):
    state = State.CLOSED
    for event in events:
        following = next_state(state, Event[event])
        assert following is not None, f"{event} in {state.name}"
        state = following
    assert state is end


def test_what_cannot_happen_changes_nothing():
    impossible = [(state, event) for state in State for event in Event if next_state(state, event) is None]
    assert (State.ESTABLISHED, Event.SYN) in impossible
    assert (State.TIME_WAIT, Event.CLOSE) in impossible
    assert (State.CLOSE_WAIT, Event.FIN) in impossible
    assert len(impossible) == len(State) * (len(Event) - 1) - 15
