"""Documented commands, one after another: each is printed before it runs, the first to fail ends.

`accelerate launch` gets the machine at hand, in the words that a reader would have to type.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

LAUNCH = "accelerate launch "


@dataclass
class Stages:
    """Runs commands one after another and notes the seconds each took."""

    seconds: dict[str, float] = field(default_factory=dict[str, float])

    def run(self, name: str, command: str) -> None:
        """Print the documented `command` and run it; SystemExit with its name where it fails."""
        command = on_this_machine(command)
        sys.stderr.write(f"\n== {name}\n$ {command}\n")
        words = shlex.split(command)
        # The same Python as ours, whether or not its environment is the active one.
        programs = {
            "python": [sys.executable],
            "accelerate": [sys.executable, "-m", "accelerate.commands.accelerate_cli"],
        }
        if words[0] not in programs:
            raise ValueError(
                f"{command}: begins with {words[0]!r}; a stage is a command of "
                f"{' or '.join(programs)}"
            )
        started = time.perf_counter()
        done = subprocess.run(
            [*programs[words[0]], *words[1:]], stdout=subprocess.DEVNULL, check=False
        )
        self.seconds[name] = round(time.perf_counter() - started, 1)
        if done.returncode:
            raise SystemExit(
                f"error: {name} failed with status {done.returncode}, its message above: {command}"
            )
        sys.stderr.write(f"== {name}: {self.seconds[name]:.1f} s\n")


def prepare(commands: Mapping[str, str], runs: Sequence[Path]) -> list[str]:
    """Run, in order, each command whose output is missing; return the outputs that were made.

    `commands` are by the file or directory that the command writes last: one that is there is
    complete. One in RUN/checkpoints is asked for where RUN is among the `runs` that are measured,
    or is named by a later command that is asked for: nobody who measures one seed trains three.
    SystemExit with the command where it fails,
    ValueError where it ends well and leaves no such output.
    """
    outputs: list[str] = []
    for output in reversed(list(commands)):
        path = Path(output)
        named = (commands[each].split() for each in outputs)
        wanted = any(run in path.parents for run in runs) or any(
            word.endswith(f"={path.parents[1]}") for words in named for word in words
        )
        if "checkpoints" not in path.parts or wanted:
            outputs.insert(0, output)
    missing = [output for output in outputs if not Path(output).exists()]
    if outputs:
        sys.stderr.write(f"{len(outputs)} outputs, {len(outputs) - len(missing)} there\n")
    stages = Stages()
    for output in missing:
        stages.run(output, commands[output])
        if not Path(output).exists():
            raise ValueError(
                f"{commands[output]} ended well and left no {output}; name in `prepare` the file "
                "that it writes last"
            )
    return missing


def on_this_machine(command: str) -> str:
    """Return an `accelerate launch` that names no machine with this one, others as they are.

    Left alone, accelerate gives a process a single thread; torch knows how many we may.
    """
    if not command.startswith(LAUNCH) or "--config_file" in command:
        return command
    machine = f"configs/accelerate/{'gpu1' if torch.cuda.is_available() else 'cpu'}.yaml"
    threads = torch.get_num_threads()
    how = f"--config_file {machine} --num_cpu_threads_per_process {threads} "
    return LAUNCH + how + command.removeprefix(LAUNCH)
