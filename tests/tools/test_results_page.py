"""The time of a run that was stopped and resumed is that of its parts."""

import results_page

BLOCK = '\tCommand being timed: "segatlas train"\n\tUser time (seconds): {}\n\tSystem time (seconds): 1.5\n'


def test_each_part_of_a_resumed_run_has_its_time(tmp_path):
    log = tmp_path / "run.log"
    log.write_text("step 1\n" + BLOCK.format(60) + "step 2\n" + BLOCK.format(30))
    assert [part["User time (seconds)"] for part in results_page.read_times(log)] == ["60", "30"]


def test_hours_between_two_parts_are_no_time_of_the_run(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text(
        "2026-11-29 10:00:00,1 INFO a\n2026-11-29 10:06:00,1 INFO b\nno stamp\n"
        "2026-11-29 14:00:00,1 INFO c\n2026-11-29 14:03:00,1 INFO d\n"
    )
    assert results_page.wall_minutes(log) == 9
