"""Earlier sessions are also read in the form in which older versions stored them."""

from decimal import Decimal

import msgspec

from tether.domain.earlier_sessions import ChargeReport, EndedSession, SessionContext

FORMERLY = (
    '{"left":[[[1000,0,"C1"],5000,false,[[2000,3000]],[[7.5,3600]],11,true,3,[[1,2]],6],'
    '[[6000,1,"C2"],7000,true,[],[],null,false,0,[],3],'
    '[[8000,0,"C2"],9000,true,[],[],null,false,0,[],0]],"soc":50.5,"soc_ms":9000}'
)
NOW = SessionContext(
    (
        EndedSession(
            1000, "C1", 4000, 0, (ChargeReport(Decimal("7.5"), Decimal(3600)),), Decimal(11),
            ((2000, 3000),), True, (ChargeReport(Decimal(1), Decimal(2)),), 2, 3, True,
        ),
        EndedSession(6000, "C2", 1000, 1, skipped=2),
        EndedSession(8000, "C2", 1000),
    ),
    Decimal("50.5"),
    9000,
)  # fmt: skip


def test_what_was_stored_before_is_what_is_stored_now() -> None:
    found = msgspec.json.decode(FORMERLY, type=SessionContext)
    assert found == NOW
    assert msgspec.json.decode(msgspec.json.encode(found), type=SessionContext) == NOW


def test_of_many_sessions_the_last_eight_are_known_and_of_a_charger_the_last_one() -> None:
    known: tuple[EndedSession, ...] = ()
    for number in range(12):
        at_b = number in (6, 9)
        known = EndedSession(number * 10, "B" if at_b else f"C{number}", 5).after(known)
    assert [(one.start_ms, one.skipped) for one in known] == [
        (40, 0), (50, 1), (70, 0), (80, 0), (90, 0), (100, 0), (110, 0),
    ]  # fmt: skip
