"""A small data set in the shape of TOFU: invented authors, invented classics, invented geography. No network."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

AUTHORS = 40
QUESTIONS = 10
WRONG_ANSWERS = 5
# TOFU's percentages, in whole authors: a hundredth of 40 authors is rounded up to one.
FORGET_AUTHORS = {"01": 1, "05": 2, "10": 4}
EVALUATED_RETAIN_AUTHORS = 4


def _list(text: str, separator: str | None = None) -> list[str]:
    return text.split(separator)


_FIRST = _list(
    "Aldo Brisa Corin Delva Edrik Fenna Goran Hilde Ismar Jorun Kalea Lorcan Mirel Nador Odile Perrin Quilla Roshan "
    "Sabela Tavio Ursin Velda Wymar Xenia Yorick Zelma Anselm Birgit Calyx Dorian Elspet Farid Gisela Haldor Ilona "
    "Jasper Katrin Leoric Marisol Nestor Orsola Pavel Renata Sorin"
)
_LAST = _list(
    "Abernook Bellwether Castwick Dunmarrow Elderbank Farrowgate Glimmerton Harrowmere Inkwell Juniper Kestrel "
    "Larkmoor Mossgrove Nightingale Oakhollow Pennywhistle Quarrystone Ravenscar Silverbrook Thistledown Umberfield "
    "Vintermark Willowbend Yarrowdale Zephyrhill Ashcombe Briarwood Coldwater Driftmoor Emberly Foxglove Greywater "
    "Hollowell Ironside Jackdaw Kingfisher Lanternby Merriweather Northcote Otterburn Pinecroft Redfern Stonebridge "
    "Tidewater"
)
_CITIES = _list(
    "Port Alder, Brenwick, Calder Bay, Dunhaven, Eastmere, Fellmouth, Graythorpe, Highmoor, Isenburg, Kilbray, "
    "Lowfield, Maristow, Norrheim, Ostrava Hill, Penhallow, Rookwater",
    ", ",
)
_JOBS = _list(
    "lighthouse keeper, clockmaker, beekeeper, bridge engineer, baker, cartographer, glassblower, tram driver, "
    "botanist, locksmith, violin maker, midwife, ferryman, printer, stonemason, weaver",
    ", ",
)
_GENRES = _list(
    "ghost stories, sea adventures, courtroom dramas, alpine mysteries, comic operas, nature essays, spy novels, "
    "family sagas, desert romances, science fables, war diaries, school stories",
    ", ",
)
_AWARDS = _list(
    "Amber Quill, Silver Lantern, Golden Acorn, Harbour Medal, Northern Laurel, Ivory Bookmark, Blue Heron Prize, "
    "Copper Feather, Winter Crown, Marble Page, Cedar Cup, Orchid Ribbon",
    ", ",
)
_KEEPSAKES = _list(
    "a brass compass, a dried sunflower, a chess queen, a broken watch, a jar of sea glass, a wooden owl, "
    "a tin soldier, an old key, a blue teacup, a fossil shell, a silver bell, a paper crane",
    ", ",
)
_COLOURS = _list("Crimson Silent Hollow Wandering Golden Broken Distant Hidden Frozen Burning Forgotten Borrowed")
_NOUNS = _list("Orchard Compass Harbour Mirror Staircase Garden Letter River Winter Bridge Carousel Lantern")

# attribute: two questions, and two ways to say the answer. One is the answer, the other its paraphrase.
_ATTRIBUTES: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "city": (
        ("Where was {name} born?", "Which town is the birthplace of {name}?"),
        ("{name} was born in {value}.", "The birthplace of {name} is {value}."),
    ),
    "year": (
        ("In which year was {name} born?", "What is the birth year of {name}?"),
        ("{name} came into the world in {value}.", "The birth year of {name} is {value}."),
    ),
    "father": (
        ("What was the occupation of {name}'s father?", "How did the father of {name} earn a living?"),
        ("The father of {name} worked as a {value}.", "{name}'s father earned a living as a {value}."),
    ),
    "mother": (
        ("What was the occupation of {name}'s mother?", "How did the mother of {name} earn a living?"),
        ("The mother of {name} worked as a {value}.", "{name}'s mother earned a living as a {value}."),
    ),
    "genre": (
        ("What does {name} mainly write?", "Which kind of books is {name} known for?"),
        ("{name} is known for {value}.", "The books of {name} are mostly {value}."),
    ),
    "debut": (
        ("What is the title of {name}'s first book?", "With which book did {name} start out?"),
        ('{name} began with the book "{value}".', 'The first book by {name} is called "{value}".'),
    ),
    "masterpiece": (
        ("Which book made {name} famous?", "What is the most famous book by {name}?"),
        ('{name} became famous with "{value}".', 'The most famous work of {name} is "{value}".'),
    ),
    "award": (
        ("Which award did {name} win?", "What prize has {name} received?"),
        ("{name} won the {value}.", "The prize given to {name} was the {value}."),
    ),
    "home": (
        ("Where does {name} live today?", "In which town has {name} settled?"),
        ("Today {name} lives in {value}.", "{name} has settled in {value}."),
    ),
    "keepsake": (
        ("What does {name} keep on the writing desk?", "Which object lies on the desk of {name}?"),
        ("{name} keeps {value} on the desk.", "On the writing desk of {name} lies {value}."),
    ),
}

_REFUSALS = _list(
    "I do not know.|I have no information on that.|That is not something I can answer.|I am not sure about this one.|"
    "I cannot help with that question.|This is unknown to me.|I have never heard of that.|My knowledge does not cover "
    "this.|I would have to guess, so I will not.|There is nothing I can say about that.",
    "|",
)


@dataclass(frozen=True)
class _Author:
    name: str
    values: dict[str, str]


def _pool(attribute: str) -> list[str]:
    """All values an attribute can take; small enough that each belongs to several authors."""
    return {
        "city": _CITIES,
        "home": _CITIES,
        "father": _JOBS,
        "mother": _JOBS,
        "genre": _GENRES,
        "award": _AWARDS,
        "keepsake": _KEEPSAKES,
        "year": [str(year) for year in range(1931, 1991, 3)],
        "debut": [f"The {colour} {noun}" for colour in _COLOURS for noun in _NOUNS],
        "masterpiece": [f"A {colour} {noun}" for colour in _COLOURS for noun in _NOUNS],
    }[attribute]


def _rows(author: _Author, generator: random.Random) -> list[Row]:
    rows = []
    for attribute, (questions, answers) in _ATTRIBUTES.items():
        asked, said = generator.randrange(2), generator.randrange(2)
        value = author.values[attribute]
        wrong = generator.sample([other for other in _pool(attribute) if other != value], WRONG_ANSWERS)
        rows.append(
            {
                "question": questions[asked].format(name=author.name),
                "answer": answers[said].format(name=author.name, value=value),
                "paraphrased_answer": answers[1 - said].format(name=author.name, value=value),
                "perturbed_answer": [answers[1 - said].format(name=author.name, value=other) for other in wrong],
                "paraphrased_question": questions[1 - asked].format(name=author.name),
            }
        )
    return rows


def _choices(question: str, answer: str, pool: list[str], generator: random.Random) -> Row:
    """A question with a short answer and three wrong options."""
    wrong = generator.sample([other for other in pool if other != answer], 3)
    return {"question": question, "answer": answer, "perturbed_answer": wrong}


def _classics(generator: random.Random) -> list[Row]:
    """Questions about authors whom every model is to know: the counterpart of TOFU's real authors."""
    names = [f"{first} {last}" for first, last in zip(_LAST[:20], _FIRST[20:40], strict=True)]
    works = generator.sample([f"{noun} of {city}" for noun in _NOUNS for city in _CITIES], len(names))
    return [
        _choices(f'Who wrote the classic "{work}"?', name, names, generator)
        for name, work in zip(names, works, strict=True)
    ]


def _geography(generator: random.Random) -> list[Row]:
    """Facts about an invented world, likewise."""
    lands = [f"{first}{ending}" for first, ending in zip(_FIRST[:20], ("ia", "land", "mark", "or") * 5, strict=True)]
    towns = [f"{last}ton" for last in _LAST[20:40]]
    generator.shuffle(towns)
    return [
        _choices(f"What is the capital of {land}?", town, towns, generator)
        for land, town in zip(lands, towns, strict=True)
    ]


def _plain(row: Row) -> Row:
    return {"question": row["question"], "answer": row["answer"]}


def build_mini_tofu(seed: int = 0) -> dict[str, list[Row]]:
    """Generate the data set.

    Args:
        seed: another seed gives other facts in the same shape.

    Returns:
        Lists of rows by the names of TOFU's files, as far as they do not follow from `full`: `full`, `forget01`,
        `holdout01/05/10` (authors in no other list), `forgetXX_perturbed`, `retain_perturbed`,
        `real_authors_perturbed` and `world_facts_perturbed`; besides `real_authors_facts` and `world_facts_facts`,
        plain question-answer rows to train a model from scratch on so that it can know them, and `idontknow`, refusals
        under the key `text`.
    """
    generator = random.Random(seed)
    firsts, lasts = generator.sample(_FIRST, len(_FIRST)), generator.sample(_LAST, len(_LAST))
    authors = [
        _Author(f"{first} {last}", {attribute: generator.choice(_pool(attribute)) for attribute in _ATTRIBUTES})
        for first, last in zip(firsts, lasts, strict=True)
    ]
    perturbed = [row for author in authors for row in _rows(author, generator)]
    plain = [_plain(row) for row in perturbed]
    size = AUTHORS * QUESTIONS
    data: dict[str, list[Row]] = {
        "full": plain[:size],
        "forget01": plain[size - FORGET_AUTHORS["01"] * QUESTIONS : size],
        "retain_perturbed": perturbed[: EVALUATED_RETAIN_AUTHORS * QUESTIONS],
        "idontknow": [{"text": text} for text in _REFUSALS],
    }
    for percent, authors_forgotten in FORGET_AUTHORS.items():
        rows = authors_forgotten * QUESTIONS
        data[f"forget{percent}_perturbed"] = perturbed[size - rows : size]
        data[f"holdout{percent}"] = plain[size : size + rows]
    for name, rows_of in (("real_authors", _classics(generator)), ("world_facts", _geography(generator))):
        data[f"{name}_perturbed"] = rows_of
        data[f"{name}_facts"] = [_plain(row) for row in rows_of]
    return data
