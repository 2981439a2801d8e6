"""redense as a process among others: what it imports, how it is stopped, who reads it, and where it
is started."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from redense import dsd
from redense.cli import COMMANDS, main
from redense.recipes import RECIPES
from redense.recipes.schedule import Schedule

front_door = sys.modules["redense.cli.main"]  # the module; the package's `main` is its function
ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "numpy", "lightning", "torchvision", "matplotlib", "pandas", "scipy", "rich")
TINY = ("--dense", "1", "--sparse", "1", "--redense", "1", "--batch", "24", "--accelerator", "cpu")


def imported_by(*arguments):
    """The heavy packages that a command has imported by its end."""
    script = (
        "import sys; from redense.cli import main\n"
        f"main({[*arguments]})\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    return json.loads(done.stderr.splitlines()[-1].replace("'", '"'))


@pytest.fixture
def desk(tmp_path, monkeypatch, stripes):
    """An empty working folder, and small packaged data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDENSE_DATA", str(stripes))
    return tmp_path


def start(*arguments, **more):
    program = [sys.executable, "-m", "redense", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(program, **(pipes | more))


# what is imported


def test_importing_redense_imports_no_torch():
    script = f"import sys, redense; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("first", ["plan", "prunable", "scheduler", "lightning"])
def test_every_public_name_is_there_whatever_was_imported_before(first):
    script = (
        f"import redense.{first}, redense\n"
        "assert set(redense.__all__) <= set(dir(redense))\n"
        "assert all(callable(getattr(redense, name)) for name in redense.__all__)\n"
        "from redense import prunable\n"
        "assert prunable is redense.prunable and prunable.__name__ == 'prunable'\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["train", "--help"], ["trian"]], ids=" ".join
)
def test_the_overview_imports_nothing_heavy(arguments):
    assert imported_by(*arguments) == []


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"data"}))
def test_a_command_s_help_imports_nothing_heavy(command):
    assert imported_by(command, "--help") == []


# signals and pipes


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_a_stopped_training_says_how_to_go_on_and_does(number, code, desk, redense):
    lengths = ("--dense", "200", "--sparse", "1", "--redense", "1", "--batch", "8")
    with start("train", "images", *lengths, "--out", "run") as process:
        while process.poll() is None and not list(Path("run").glob("checkpoints/epoch*")):
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err == "stopped; nothing is lost: redense train images --resume run\n"


def test_a_training_whose_terminal_is_closed_ends_as_when_it_is_stopped(desk):
    lengths = ("--dense", "200", "--sparse", "1", "--redense", "1", "--batch", "8")
    command = [sys.executable, "-m", "redense", "train", "images", *lengths, "--out", "run"]
    ours, theirs = os.openpty()
    own = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    with subprocess.Popen(
        [sys.executable, "-c", f"{own}os.execv(sys.argv[1], sys.argv[1:])", *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        while process.poll() is None and not list(Path("run").glob("checkpoints/epoch*")):
            os.read(ours, 4096)  # a full terminal would hold it up
        os.close(ours)
        assert process.wait(timeout=60) == 128 + signal.SIGHUP


@pytest.mark.parametrize("seconds", [0.6, 1.0, 1.5, 2.5])
def test_ctrl_c_while_importing_is_quiet_and_prompt(seconds, desk):
    """Extension modules that an interrupt goes through may abort the process: none does."""
    with start("train", "images", "--dense", "500", "--out", "run") as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("stopped")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "imported", ["time.sleep(0.3)", "while time.process_time() < 60: pass"], ids=["short", "long"]
)
def test_the_way_on_is_said_after_a_stop_in_an_import_of_a_training_too(imported, desk):
    """A short one ends before the stop, a long one is cut off."""
    Path("slow.py").write_text(f"import time\nprint('now', flush=True)\n{imported}\n")
    Path("mine.py").write_text(
        "import time\ndef train(run):\n    import slow\n    time.sleep(30)\n"
    )
    lengths = ("--dense", "1", "--sparse", "1", "--redense", "1", "--seeds", "2", "--jobs", "1")
    with start("prove", "mine.py:train", *lengths) as process:
        while process.stdout.readline() != "now\n":
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("stopped; nothing is lost: the same command goes on\n"), err


@pytest.mark.parametrize(
    ("end", "wanted"),
    [
        ("sys.exit(main())", 143),
        ("code = main(['inspect'])\ntime.sleep(0.2)\nsys.exit(code != 143)", 0),
    ],
    ids=["the process ends", "a caller goes on"],
)
def test_a_command_that_ends_before_a_signal_in_an_import_is_asked_again_ends_with_its_code(
    end, wanted, desk
):
    Path("slow.py").write_text("import time\nprint('now', flush=True)\ntime.sleep(0.3)\n")
    script = (
        "import sys, time\n"
        "from redense.cli import main\n"
        "def run(arguments):\n"
        "    import slow\n"
        "    return 0\n"
        f"sys.modules['redense.cli.main']._run = run\n{end}"
    )
    code, err = stopped_script(script)
    assert code == wanted
    assert err in ("", "stopped\n")  # whichever came first


def stopped_script(script, *arguments):
    """(exit code, stderr) of a script that says when SIGTERM may come."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    return process.returncode, err


def test_sigterm_between_the_command_s_end_and_the_process_s_ends_with_its_code_too():
    script = (
        "import atexit, os, sys, time; from redense.cli import main\n"
        "with open(os.devnull, 'w') as sys.stdout: code = main()\n"
        "atexit.register(lambda: (print('now', file=sys.__stdout__, flush=True), time.sleep(20)))\n"
        "sys.exit(code)"
    )
    assert stopped_script(script, "--help") == (143, "")


def test_what_python_has_done_is_not_undone_by_a_signal_at_the_very_end():
    script = (
        "import atexit, sys, time\n"
        "atexit.register(lambda: (print('now', flush=True), time.sleep(1)))\n"
        "from redense.cli import main\n"
        "sys.stdout.write = lambda text: None\n"
        "code = main()\n"
        "del sys.stdout.write\n"
        "sys.exit(code)"
    )
    assert stopped_script(script, "--help") == (0, "")


DROPS = """
import time
class Slow:
    def __del__(self):
        print('now', flush=True)
        time.sleep(20)
def run(arguments):
    Slow()
    for _ in range(1000): time.sleep(0.02)
    return 0
sys.modules['redense.cli.main']._run = run
sys.exit(main())
"""


def test_an_interrupt_that_python_drops_is_asked_for_again():
    began = time.monotonic()
    script = f"import sys\nfrom redense.cli import main\n{DROPS}"
    assert stopped_script(script) == (143, "stopped\n")
    assert time.monotonic() - began < 15


def test_an_interrupt_while_a_dropped_one_is_noted_is_not_dropped_itself():
    """The second signal comes within the hook that asks for the first once more."""
    script = (
        "import os, signal, sys, time\n"
        "from redense.cli import main\n"
        "front_door = sys.modules['redense.cli.main']\n"
        "again = front_door._send_again\n"
        "def slowly(number):\n"
        "    front_door._send_again = again\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    again(number)\n"
        "front_door._send_again = slowly\n"
    )
    assert stopped_script(script + DROPS) == (143, "stopped\n")


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["the process", "its group"])
def test_sigterm_with_loader_processes_alive_ends_with_its_code_and_leaves_none(
    send, desk, pictures
):
    lengths = ("--dense", "500", "--sparse", "1", "--redense", "1", "--workers", "2")
    streamed = ("--data", pictures, "--augment", "scale-crop", "--size", "8", "--batch", "8")
    flags = (*lengths, *streamed, "--accelerator", "cpu", "--out", "run")
    with start("train", "images", *flags, start_new_session=True) as process:
        while process.poll() is None and not list(Path("run").glob("checkpoints/epoch*")):
            time.sleep(0.05)
        session = process.pid
        workers = [one for one in psutil.Process(session).children() if one.is_running()]
        assert len(workers) >= 2
        send(session, signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    assert err == "stopped; nothing is lost: redense train images --resume run\n"
    assert psutil.wait_procs(workers, timeout=30)[1] == []


def test_a_reader_that_leaves_makes_no_noise():
    reader, writer = os.pipe()
    os.close(reader)
    with start("--help", stdout=writer) as process:
        os.close(writer)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, "")


def test_a_broken_pipe_that_is_not_the_output_is_told(redense, monkeypatch):
    def broken(arguments):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(front_door, "_run", broken)
    assert redense("inspect").err == "redense: error: Broken pipe\n"


# where it is started


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(desk, redense, monkeypatch):
    home = desk / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    assert redense("train", "images", *TINY, "--out=~/run").code == 0
    assert redense("train", "images", "--resume=~/run").code == 0
    assert redense("inspect", "~/run").code == 0
    assert redense("eval", "~/run", "--data=fashion-mnist").code == 0
    assert redense("report", "~/run", "--out=~/page.html").code == 0
    assert redense("export", "~/run", "~/hub").code == 0
    assert {"hub", "page.html", "run"} <= {path.name for path in home.iterdir()}
    assert not (desk / "~").exists()


@pytest.mark.parametrize("name", ["random", "queue", "select", "inspect"])
def test_a_script_of_ones_own_is_not_taken_for_the_standard_library_s(name, desk):
    (desk / f"{name}.py").write_text("raise SystemExit('a script of my own')\n")
    torch.save({"weight": torch.zeros(3, 3)}, "net.pt")
    with start("inspect", "net.pt") as process:
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_processes_that_a_command_starts_are_as_safe_from_such_scripts(monkeypatch):
    seen = []
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)

    def look(arguments):
        seen.append(os.environ["PYTHONSAFEPATH"])
        return 0

    monkeypatch.setattr(front_door, "_run", look)
    assert main(["train"]) == 0
    assert seen == ["1"]
    assert "PYTHONSAFEPATH" not in os.environ


def test_python_in_the_folder_above_a_clone_imports_redense(tmp_path):
    subprocess.run(
        ["git", "clone", "-q", "--depth", "1", f"file://{ROOT}", "redense"],
        cwd=tmp_path,
        check=True,
    )
    done = subprocess.run(
        [sys.executable, "-c", "import redense; print(len(redense.dsd(3, 2, 2, 0.5)))"],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(tmp_path / "redense" / "src")},  # as a .pth file adds it
        capture_output=True,
        text=True,
    )
    assert done.stdout == "7\n", done.stderr


def test_inspect_writes_whole_names_into_a_pipe(desk, redense):
    names = [f"features.denseblock{b}.denselayer{n}.conv1.weight" for b in (1, 2) for n in (1, 20)]
    torch.save({name: torch.ones(64, 128, 3, 3) for name in names}, "net.pt")
    answer = redense("inspect", "net.pt")
    assert all(name in answer.out.split() for name in names)


def test_jobs_default_to_the_cores_that_the_process_may_use():
    from redense.cli.prove import Study

    one = min(os.sched_getaffinity(0))
    script = "from redense.cli.prove import Study; print(Study().workers)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        preexec_fn=lambda: os.sched_setaffinity(0, {one}),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "1\n"
    assert Study(jobs=3).workers == 3


def test_an_interactive_slurm_session_of_several_tasks_trains_one_run(desk, redense, monkeypatch):
    session = {"JOB_ID": 1, "JOB_NAME": "notebook", "NTASKS": 4, "PROCID": 0, "LOCALID": 0}
    for name, value in {**session, "NODEID": 0, "JOB_NODELIST": "localhost"}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    assert redense("train", "images", *TINY, "--out", "run").code == 0
    assert Path("run/record.json").exists()


# one flag is enough


@pytest.mark.parametrize("recipe", RECIPES)
def test_one_pass_needs_one_flag(recipe, redense, desk):
    answer = redense("train", recipe, "--passes", "1", "--print-plan")
    assert answer.code == 0
    assert [line.split()[0] for line in answer.out.splitlines()[1:4]] == [
        "dense",
        "sparse",
        "redense",
    ]


def test_rates_that_no_recipe_names_are_those_of_dsd():
    lengths = {"dense": 4, "sparse": 2, "redense": 2}
    assert Schedule(**lengths).to_plan() == dsd(**lengths, decay="cosine")


def test_a_dense_training_alone_is_a_plan(desk, redense):
    flags = ("--dense", "1", "--sparse", "0", "--redense", "0", "--batch", "24", "--out", "run")
    assert redense("train", "images", *flags).code == 0
    record = json.loads(Path("run/record.json").read_text())
    assert [phase["name"] for phase in record["phases"]] == ["dense"]


def test_the_command_line_is_kept_with_the_run(desk, redense):
    flags = ("train", "images", *TINY, "--out", "run")
    assert redense(*flags).code == 0
    assert json.loads(Path("run/config.json").read_text())["command"] == ["redense", *flags]


def test_a_mask_that_is_misspelt_is_said_before_anything_is_trained(redense, desk):
    for flags in (("train", "images", "--print-plan"), ("prove", "images", "--dry-run")):
        answer = redense(*flags, "--mask", "magnitud")
        assert answer.code == 2
        assert "mask must be one of magnitude, random, global, got 'magnitud'" in answer.err
    Path("plan.toml").write_text('[[phases]]\nname = "a"\nlength = 1\nmask = "magnitud"\n')
    answer = redense("train", "images", "--plan", "plan.toml", "--print-plan")
    assert answer.code == 2
    assert "plan.toml: phase 'a': mask must be one of" in answer.err


def test_a_plan_file_has_no_keys_that_mean_nothing(redense, desk):
    text = 'weight_deccay = [1.0, 2.0]\n[[phases]]\nname = "a"\nlength = 1\n'
    Path("plan.toml").write_text(text)
    answer = redense("train", "images", "--plan", "plan.toml", "--print-plan")
    assert answer.code == 2
    assert "plan.toml: a plan has no 'weight_deccay'; did you mean weight_decay?" in answer.err
    Path("plan.toml").write_text(text.replace("deccay = [1.0, 2.0]", "decay = [3.5]"))
    answer = redense("train", "images", "--plan", "plan.toml", "--print-plan")
    assert "weight-decay   [3.5]  (of plan.toml)" in answer.out


def test_random_weights_under_a_mask_are_said(redense, desk):
    alone = ("--dense", 0, "--dry-run")
    answer = redense("prove", "images", *alone)
    assert "--dense 0 without --init: the first sparse phase holds" in answer.err
    answer = redense("prove", "images", "--dry-run")
    assert "without --init" not in answer.err


def test_a_run_in_double_precision_can_be_used(redense, desk, pictures):
    flags = ("--data", pictures, *TINY, "--precision", "64-true", "--out", "run")
    assert redense("train", "images", *flags).code == 0
    record = json.loads(Path("run/record.json").read_text())
    answer = redense("eval", "run", "--data", pictures, "--workers", 0)
    assert answer.code == 0, answer.err
    assert f"top-1  {record['test']['top1']:.2f} % right" in answer.out
    assert redense("export", "run", "hub").code == 0
    answer = redense("classify", "hub", next((pictures / "test").rglob("*.png")))
    assert answer.code == 0, answer.err


def test_a_folder_that_holds_a_run_is_said_before_data_are_read(redense, desk):
    Path("run").mkdir()
    Path("run/config.json").write_text("{}")
    answer = redense("train", "images", "--data", "nowhere", "--out", "run")
    assert answer.code == 2
    assert "run already holds a run; resume it with --resume run" in answer.err


def test_a_run_can_start_from_another_ones_folder(redense, desk, pictures):
    flags = ("--data", pictures, *TINY)
    assert redense("train", "images", *flags, "--out", "first").code == 0
    answer = redense("train", "images", *flags, "--init", "first", "--dense", 0, "--out", "second")
    assert answer.code == 0, answer.err
    assert "without --init" not in answer.err
    assert json.loads(Path("second/record.json").read_text())["plan"][0]["name"] == "sparse"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--seeds", 4, "--most", 3), "most goes with --seeds auto; 4 seeds are trained"),
        (("--momentum", 2), "momentum must be below 1, got 2.0"),
    ],
)
def test_flags_that_would_do_nothing_or_harm_are_refused(flags, said, redense, desk):
    answer = redense("prove", "images", *flags, "--dry-run")
    assert answer.code == 2
    assert said in answer.err
