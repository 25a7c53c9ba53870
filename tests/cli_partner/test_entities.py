import json
import re
import subprocess

from tests.cli_partner.conftest import Site
from tests.commands import Command
from tests.conftest import TETHER
from tests.services import free_port


def test_a_charger_is_put_shown_changed_and_listed(partner: Command) -> None:
    said = partner.ok("chargers", "put", "C1", "--charge-powers", "11, 22.0", "--latitude",
                      "-62.268", "--longitude", "17.448")  # fmt: skip
    assert said == "Created charger C1.\n"
    assert partner.ok("chargers", "patch", "C1", "--discharge-powers", "5") == (
        "Changed charger C1.\n"
    )
    assert partner.ok("chargers", "get", "C1") == (
        '{"id":"C1","chargePowers":[11,22.0],"dischargePowers":[5],'
        '"latitude":-62.268,"longitude":17.448}\n'
    )
    status, seen = partner.in_terminal("chargers", "list")
    assert status == 0
    titles, _, row = (re.split(r"  +", line.strip()) for line in seen.splitlines())
    assert titles == ["Charger", "Charges with", "Feeds back with", "Position"]
    assert row == ["C1", "11, 22.0 kW", "5 kW", "-62.268, 17.448"]
    status, seen = partner.in_terminal("chargers", "get", "C1")
    assert [re.split(r"  +", line)[-1] for line in seen.splitlines()] == [
        "C1", "-62.268, 17.448", "11, 22.0 kW", "5 kW",
    ]  # fmt: skip


def test_an_empty_option_removes_a_member(partner: Command) -> None:
    partner.ok("vehicles", "put", "V1", "--charge-capacity", "74.80", "--charge-powers", "11",
               "--discharge-power-min", "1", "--discharge-power-max", "5.5")  # fmt: skip
    partner.ok("vehicles", "patch", "V1", "--discharge-power-min", "", "--discharge-power-max", "")
    assert partner.ok("vehicles", "get", "V1", "--json") == (
        '{"id":"V1","chargeCapacity":74.80,"chargePowers":[11]}\n'
    )
    partner.ok("vehicles", "patch", "V1", "--charge-powers", "", "--charge-power-min", "1",
               "--charge-power-max", "11")  # fmt: skip
    assert "chargePowers" not in json.loads(partner.ok("vehicles", "get", "V1"))


def test_bodies_come_from_files_and_standard_input(partner: Command) -> None:
    file = partner.folder / "charger.json"
    file.write_text('{"id": "C1", "minChargePower": 1.50, "chargePowerMax": 22,}')
    assert partner.ok("chargers", "put", "C1", str(file)) == "Created charger C1.\n"
    assert partner.ok("chargers", "put", "C1", str(file)) == "Replaced charger C1.\n"
    done = partner("chargers", "patch", "C1", "-", stdin='{"latitude": 1, "longitude": 2}')
    assert (done.returncode, done.stderr) == (0, "")
    assert partner.ok("chargers", "get", "C1") == (
        '{"id":"C1","chargePowerMin":1.50,"chargePowerMax":22,"latitude":1,"longitude":2}\n'
    )
    file.write_text('{"chargePowers": [11]')
    assert partner.refused("chargers", "put", "C1", str(file)).startswith(
        f"{file}: It is not valid JSON"
    )


def test_lists_are_lines_in_a_pipe_and_all_of_them(site: Site) -> None:
    with site.client() as client:
        for number in range(2, 4):
            client.put(f"/vehicles/V{number}", json={"chargeCapacity": 5, "chargePowers": [11]})
    lines = [json.loads(line) for line in site.ok("vehicles", "list").splitlines()]
    assert [line["id"] for line in lines] == ["V1", "V2", "V3"]
    assert len(site.ok("vehicles", "list", "--json", "--limit", "2").splitlines()) == 2


def test_mistakes_are_explained_in_a_sentence(partner: Command) -> None:
    for words, sentence in (
        ("chargers get nope", "There is no charger nope."),
        ("vehicles patch nope --charge-powers 11", "There is no vehicle nope."),
        ("chargers put C1 --latitude 1 --charge-powers 11",
         "Parameter {longitude} is invalid. It must be given together with latitude."),
        ("vehicles put V1 --charge-powers 11",
         "Parameter {chargeCapacity} is invalid. It is required."),
        ("chargers put C/1 --charge-powers 11", "Parameter {id} is invalid. It must be 1 to 128"),
    ):  # fmt: skip
        assert partner.refused(*words.split()).startswith(sentence)
    for words, sentence in (
        ("chargers put C1 --charge-powers 11;22", "'11;22' is not a list of numbers such as 11,22"),
        ("chargers put C1 --latitude 1_0", "'1_0' is not a number such as 7.4"),
        ("chargers put C1", "Give a JSON file (- is standard input), or options."),
        ("chargers put C1 - --latitude 1", "Give either a JSON file or options, not both."),
    ):
        assert sentence in partner.refused(*words.split(), status=2)


def test_a_server_that_is_not_there_and_a_key_that_does_not_work_are_explained(
    partner: Command,
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    said = partner.refused("chargers", "list", TETHER_URL=nowhere)
    assert said.startswith(f"Nothing answers at {nowhere}. Is the server running there?")
    secret = nowhere.replace("//", "//me:secret@")
    assert "secret" not in partner.refused("chargers", "list", TETHER_URL=secret)
    wrong = "ttr_live_" + "x" * 36
    done = partner("chargers", "list", "--api-key", wrong)
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not accept this API key (403). Is it complete" in done.stderr
    assert wrong not in done.stderr
    said = partner.refused("chargers", "list", TETHER_API_KEY="")
    assert said.startswith("An API key is needed: give --api-key or set TETHER_API_KEY.")
    key = partner.environment["TETHER_API_KEY"]
    assert key not in partner.ok("chargers", "list", "--help")


def test_nobody_has_to_listen(partner: Command) -> None:
    for words in ("chargers list", "export chargers"):
        done = subprocess.run(
            ["sh", "-c", f'"$0" {words} >&-', TETHER],
            env=partner.variables(PATH="/usr/bin:/bin"),
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_the_demo_key_is_used_where_there_is_one(partner: Command) -> None:
    (partner.folder / ".tether").mkdir()
    (partner.folder / ".tether" / "demo.key").write_text(partner.environment["TETHER_API_KEY"])
    assert partner.ok("chargers", "list", TETHER_API_KEY="") == ""
