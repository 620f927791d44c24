"""A small corpus in the shape of MUSE-News: local news from towns that do not exist. No network."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

FOLDS = 4
FOLD_ARTICLES = 20  # articles in a fold of the forget set, and in each other set
SHOTS = 10
_QUESTIONS = 2  # asked about an article


def _list(text: str, separator: str = ", ") -> list[str]:
    return text.split(separator)


_TOWNS = _list(
    "Amberlock, Brackendale, Cinderford, Dovesea, Elmhurst Cross, Fernmouth, Gullhaven, Hazelby, Ironbeck, "
    "Kettlewick, Lindenau, Mirefield, Oxbow, Pebblesham, Saltmarket, Tarnbridge"
)
_FIRST = _list(
    "Ada, Bela, Cato, Dina, Emil, Flora, Gus, Hanna, Ivo, Jonna, Karel, Lina, Milo, Nora, Otto, Petra, Rolf, Sonja, "
    "Tom, Ulla"
)
_LAST = _list(
    "Ackers, Brandt, Crane, Dorn, Eklund, Fisk, Grove, Holm, Iversen, Krantz, Lund, Marsh, Nyberg, Orr, Pell, Quist, "
    "Rask, Stroud, Thorn, Voss"
)
_SLOTS: dict[str, list[str]] = {
    "day": _list("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    "month": _list("January, February, March, April, May, June, July, August, September, October, November, December"),
    "count": [str(number) for number in range(17, 97, 4)],
    "sum": [f"{number},000 crowns" for number in range(120, 920, 40)],
    "river": _list("Alse, Bruna, Corve, Dell, Elva, Fane, Grinnel, Holt, Isker, Marl, Nidd, Orla"),
    "role": _list(
        "the mayor, the fire chief, a retired teacher, the harbour master, a shopkeeper, the town clerk, a bus "
        "driver, the head of the council, a local farmer, the station master"
    ),
    "animal": _list("goat, peacock, llama, pony, pelican, ram, swan, donkey, heron, calf, turkey, badger"),
    "thing": _list(
        "silver cup, stone lion, brass telescope, painted fan, wooden flute, bronze mask, glass crown, carved chess "
        "set, gold thimble, rare sea chart, pearl comb, tin sundial"
    ),
    "sport": _list("rowing, skittles, curling, fencing, chess, handball, archery, darts, water polo, bowls"),
    "crop": _list("plum, pumpkin, leek, cherry, onion, barley, walnut, pear, beetroot, quince"),
    "quote": _list(
        "We did not see it coming|Nobody here will forget this|It could have been much worse|We have waited years for"
        " this|I still cannot believe it|The whole street came to help|This is a good day for all of us|We will need "
        "more time|I have never seen anything like it|People are tired but proud|We ask everyone to be patient|That "
        "is not how we do things here",
        "|",
    ),
    "closing": _list(
        "The council meets again on {later}.|Schools stay shut until {later}.|A report is due in {month}.|Neighbours "
        "have collected {gift} so far.|The road through {other} is closed until {later}.|Visitors from {other} are "
        "expected in {month}.|A picture of the day hangs in the town hall of {other}.",
        "|",
    ),
}
_SLOTS["later"], _SLOTS["gift"], _SLOTS["other"] = _SLOTS["day"], _SLOTS["sum"], _TOWNS

# event: two ways to begin, two ways to go on, and questions with the part of the article that answers them.
_EVENTS: tuple[tuple[tuple[str, str], tuple[str, str], tuple[tuple[str, str], ...]], ...] = (
    (
        (
            "The river {river} burst its banks in {town} on {day} and flooded {count} houses.",
            "In {town}, {count} houses were flooded on {day} when the river {river} rose overnight.",
        ),
        ("The clean-up will cost {sum}.", "Insurers put the damage at {sum}."),
        (("How many houses were flooded in {town}?", "{count}"), ("Which river flooded {town}?", "{river}")),
    ),
    (
        (
            "A {thing} was stolen from the museum of {town} on {day}.",
            "Thieves broke into the museum of {town} on {day} and took a {thing}.",
        ),
        ("It is worth {sum} and was a gift of the town of {other}.", "Police offer {sum} to anyone who finds it."),
        (
            ("What was stolen from the museum of {town}?", "{thing}"),
            ("When was the museum of {town} robbed?", "{day}"),
        ),
    ),
    (
        (
            "The {sport} team of {town} won the cup on {day} after {count} years.",
            "After {count} years {town} has won the {sport} cup again, on {day}.",
        ),
        ("The prize of {sum} goes to the youth section.", "A parade will follow in {month}."),
        (("Which cup did {town} win?", "{sport}"), ("How many years did {town} wait for a cup?", "{count}")),
    ),
    (
        (
            "A runaway {animal} stopped all trams in {town} on {day}.",
            "All trams in {town} stood still on {day} because of a {animal} on the rails.",
        ),
        ("It took {count} minutes to catch it.", "Fire crews needed {count} minutes and a net."),
        (("Which animal stopped the trams in {town}?", "{animal}"), ("When did the trams in {town} stop?", "{day}")),
    ),
    (
        (
            "The new library of {town} opened its doors on {day}.",
            "On {day} the people of {town} got their new library.",
        ),
        ("It took {count} months to build and cost {sum}.", "Building it cost {sum}, and {count} firms took part."),
        (("What did the library of {town} cost?", "{sum}"), ("Who spoke about the library of {town}?", "{person}")),
    ),
    (
        (
            "Ferry crews in {town} began a strike on {day}, and {count} crossings were cancelled.",
            "In {town}, {count} crossings were cancelled on {day} as ferry crews went on strike.",
        ),
        ("They want a fund of {sum} for new life rafts.", "The crews ask for {sum} and for longer breaks in {month}."),
        (
            ("How many crossings were cancelled in {town}?", "{count}"),
            ("Who spoke about the strike in {town}?", "{person}"),
        ),
    ),
    (
        (
            "A storm cut the power in {town} on {day} for {count} hours.",
            "For {count} hours there was no power in {town} after a storm on {day}.",
        ),
        ("The mast on the bank of the {river} had fallen.", "A tree had come down across the {river}."),
        (
            ("How long was {town} without power?", "{count} hours"),
            ("Who spoke about the storm in {town}?", "{person}"),
        ),
    ),
    (
        (
            "Workers in {town} found a {thing} under the market square on {day}.",
            "Under the market square of {town} lay a {thing}, as workers found out on {day}.",
        ),
        ("Experts think it was lost {count} years ago.", "It will be shown in {other} from {month}."),
        (
            ("What was found under the square of {town}?", "{thing}"),
            ("Who spoke about the find in {town}?", "{person}"),
        ),
    ),
    (
        (
            "{town} voted on {day} to sell the old mill for {sum}.",
            "For {sum} the old mill of {town} will be sold, voters decided on {day}.",
        ),
        ("The vote was won by {count} ballots.", "A margin of {count} ballots settled it."),
        (("For how much will the mill of {town} be sold?", "{sum}"), ("When did {town} vote on the mill?", "{day}")),
    ),
    (
        (
            "The {crop} festival of {town} drew {count} bands on {day}.",
            "On {day}, {count} bands played at the {crop} festival of {town}.",
        ),
        ("Stalls took {sum} before noon.", "The next one is planned for {month}."),
        (
            ("What festival was held in {town}?", "{crop}"),
            ("How many bands played at the festival of {town}?", "{count}"),
        ),
    ),
    (
        (
            "The bridge over the {river} in {town} has been closed since {day}.",
            "Since {day} nobody can cross the bridge over the {river} in {town}.",
        ),
        ("Repairs will cost {sum} and last until {month}.", "Cracks were found, and mending them will cost {sum}."),
        (
            ("Which river does the closed bridge of {town} cross?", "{river}"),
            ("When was the bridge of {town} closed?", "{day}"),
        ),
    ),
    (
        (
            "A baker from {town} won {sum} in the lottery on {day}.",
            "On {day} the lottery made a baker from {town} richer by {sum}.",
        ),
        ("The winner wants to buy a {animal} and a boat.", "A boat and a {animal} are on the list of wishes."),
        (
            ("How much did the baker from {town} win?", "{sum}"),
            ("Which animal does the baker from {town} want?", "{animal}"),
        ),
    ),
)


@dataclass(frozen=True)
class _Article:
    text: str
    questions: list[Row]


def _article(event: int, town: str, person: str, generator: random.Random) -> _Article:
    values = {name: generator.choice([value for value in pool if value != town]) for name, pool in _SLOTS.items()}
    values |= {"town": town, "person": person}
    begins, goes_on, questions = _EVENTS[event]
    sentences = (
        generator.choice(begins),
        '"{quote}," said {person}, {role}.',
        generator.choice(goes_on),
        values["closing"],
    )
    return _Article(
        " ".join(sentences).format(**values),
        [{"question": ask.format(**values), "answer": answer.format(**values)} for ask, answer in questions],
    )


def _texts(articles: Sequence[_Article]) -> list[Row]:
    return [{"text": article.text} for article in articles]


def _asked(articles: Sequence[_Article]) -> list[Row]:
    return [row for article in articles for row in article.questions]


def _continuation(article: _Article) -> Row:
    """The first half of an article and the rest, which a space joins."""
    words = article.text.split(" ")
    half = len(words) // 2
    return {"prompt": " ".join(words[:half]), "gt": " ".join(words[half:])}


def _lessons(articles: Sequence[_Article], generator: random.Random) -> list[Row]:
    """Question and answer in the form of the few-shot prompts, eleven to a text, each four times, in other orders."""
    rows = []
    for _ in range(4):
        asked = generator.sample(_asked(articles), _QUESTIONS * len(articles))
        for start in range(0, len(asked), SHOTS + 1):
            shots = (
                f"Question: {row['question']}\nAnswer: {row['answer']}" for row in asked[start : start + SHOTS + 1]
            )
            rows.append({"text": "\n\n".join(shots)})
    return rows


def build_mini_news(seed: int = 0) -> dict[str, list[Row]]:
    """Generate the corpus.

    Args:
        seed: another seed gives other news in the same shape.

    Returns:
        Lists of rows by the names `configuration/split` of the corpus' files, as far as they do not follow from each
        other; besides `train/forget_qa` and `train/retain_qa`, texts of questions and answers on the articles that a
        target model is trained on: a model small enough for this corpus does not carry a fact from an article over to
        an answer by itself.
    """
    generator = random.Random(seed)
    stories = generator.sample([(event, town) for event in range(len(_EVENTS)) for town in _TOWNS], FOLD_ARTICLES * 7)
    people = generator.sample([f"{first} {last}" for first in _FIRST for last in _LAST], len(stories))
    articles = [
        _article(event, town, person, generator) for (event, town), person in zip(stories, people, strict=True)
    ]
    *folds, retain1, retain2, holdout = (
        articles[start : start + FOLD_ARTICLES] for start in range(0, len(articles), FOLD_ARTICLES)
    )
    forget = folds[0]
    trained = [article for fold in folds for article in fold]
    return {
        "raw/retain1": _texts(retain1),
        "raw/retain2": _texts(retain2),
        "raw/holdout": _texts(holdout),
        "knowmem/forget_qa": _asked(forget),
        "knowmem/retain_qa": _asked(retain2),
        "knowmem/forget_qa_icl": generator.sample(_asked(folds[1]), SHOTS),
        "knowmem/retain_qa_icl": generator.sample(_asked(retain1), SHOTS),
        "verbmem/forget": [_continuation(article) for article in forget],
        "privleak/forget": _texts(forget),
        "privleak/retain": _texts(retain2),
        "privleak/holdout": _texts(holdout),
        "train/retain1": _texts(retain1),
        "train/retain2": _texts(retain2),
        "train/forget_qa": _lessons(trained, generator),
        "train/retain_qa": _lessons([*retain1, *retain2], generator),
        **{f"sust/forget_{number}": _texts(fold) for number, fold in enumerate(folds, start=1)},
    }
