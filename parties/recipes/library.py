"""The recipes there are, and a copy of one to start from."""

from importlib import resources
from pathlib import Path

import pandas as pd
import yaml

from compliance.agreement import Agreement
from parties.errors import HomeExists, RecipeUnknown
from parties.recipes import generate
from parties.recipes.figures import NAMES

AGREEMENT, JOB, BANK, PARTNER = "agreement.yaml", "job.yaml", "bank.yaml", "partner.yaml"
CONSENTS = ("bank_consents.csv", "partner_consents.csv")


def files(name: str) -> dict[str, str]:
    """What is in the recipe's folder. Raises RecipeUnknown."""
    if name not in NAMES:
        raise RecipeUnknown(f"There is no recipe {name!r}.", f"There are {', '.join(NAMES)}.")
    folder = resources.files("parties.recipes") / name
    found = {one.name: one.read_text("utf-8") for one in folder.iterdir()}
    return dict(sorted(found.items()))


def question(name: str) -> str:
    """What the recipe answers: the first line of its agreement."""
    return files(name)[AGREEMENT].splitlines()[0].removeprefix("# ")


def write(name: str, folder: Path, *, made_up: bool = False) -> list[Path]:
    """Copy the recipe; its datasets are looked for in `folder`. What was written.

    made_up: with tables of people who do not exist, and their consents, to try it on.
    Raises RecipeUnknown, and HomeExists if the folder is not empty.
    """
    written = files(name)
    if folder.exists() and any(folder.iterdir()):
        raise HomeExists(f"{folder} exists and is not empty.", "Name a folder that does not exist.")
    folder.mkdir(parents=True, exist_ok=True)
    for side in (BANK, PARTNER):
        written[side] = written[side].replace("path: ", f"path: {folder.absolute()}/")
    for file, text in written.items():
        (folder / file).write_text(text, "utf-8")
    tables = _tables(name) if made_up else {}
    for file, table in tables.items():
        table.to_csv(folder / file, index=False)
    return [folder / file for file in (*written, *tables)]


def datasets(folder: Path, side: str) -> str:
    """What bank.yaml or partner.yaml of a written recipe says, as a config.yaml has it."""
    text: str = yaml.safe_dump({"datasets": yaml.safe_load((folder / side).read_text("utf-8"))})
    return text


def _tables(name: str) -> dict[str, pd.DataFrame]:
    agreement = Agreement.from_yaml(files(name)[AGREEMENT])
    made = generate.generate(name)
    parties, data = agreement.parties, agreement.data
    sides = ((parties.partner, data.bank.categories), (parties.bank, data.partner.categories))
    found = {f"{table}.csv": frame for table, frame in (made.bank | made.partner).items()}
    for side, (recipient, categories) in enumerate(sides):
        table = made.consents(side, agreement.purpose, recipient, ";".join(categories))
        found[CONSENTS[side]] = table
    return found
