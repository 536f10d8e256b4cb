"""What a database holds, below Optuna's storage: names, and how a study is removed, whoever made its tables."""

from __future__ import annotations

import sqlalchemy
from optuna.storages._rdb.models import StudyModel, StudyUserAttributeModel
from sqlalchemy import column, select, table

from objectives.words import some
from search.database.storage import Database
from search.errors import UsageError

STUDIES = table("studies", column("study_id"), column("study_name"))
TRIALS = table("trials", column("trial_id"), column("study_id"))


def names(database: Database) -> list[str]:
    """Names of all studies, ours and others."""
    with database.optuna.engine.connect() as connection:
        return sorted(connection.execute(select(StudyModel.study_name)).scalars())


def names_with(database: Database, attribute: str) -> list[str]:
    """Names of the studies that have a user attribute."""
    have = select(StudyUserAttributeModel.study_id).where(StudyUserAttributeModel.key == attribute)
    with database.optuna.engine.connect() as connection:
        found = connection.execute(select(StudyModel.study_name).where(StudyModel.study_id.in_(have)))
        return sorted(found.scalars())


def only_name(database: Database, attribute: str, way_out: str) -> str:
    """Name of the one study that has a user attribute.

    Raises:
        UsageError: there are several, or none.
    """
    found = names_with(database, attribute)
    if len(found) != 1:
        holds = f"{len(found)} studies ({some(found)})" if found else "no study of ours"
        raise UsageError(f"{database.shown} holds {holds}: {way_out}")
    return found[0]


def rename(database: Database, name: str, new_name: str) -> None:
    """Gives a study another name, and the folder of its networks with it."""
    old, new = database.artifacts(name), database.artifacts(new_name)
    change = sqlalchemy.update(STUDIES).where(STUDIES.c.study_name == name).values(study_name=new_name)
    with database.optuna.engine.begin() as connection:
        connection.execute(change)
        if old.exists():
            old.rename(new)  # before the commit: a failure undoes the name


def delete(database: Database, name: str) -> None:
    """Removes all rows of a study and of its trials, also from tables that this version of Optuna does not know."""
    inspector = sqlalchemy.inspect(database.optuna.engine)
    have = {each: {about["name"] for about in inspector.get_columns(each)} for each in inspector.get_table_names()}
    study = select(STUDIES.c.study_id).where(STUDIES.c.study_name == name)
    trials = select(TRIALS.c.trial_id).where(TRIALS.c.study_id.in_(study))
    of_trials = [each for each in have if "trial_id" in have[each] and each != "trials"]
    of_studies = [each for each in have if "study_id" in have[each] and each not in ("trials", "studies")]
    with database.optuna.engine.begin() as connection:
        for key, rows, places in (("trial_id", trials, of_trials), ("study_id", study, [*of_studies, "trials"])):
            for place in places:
                connection.execute(sqlalchemy.delete(table(place, column(key))).where(column(key).in_(rows)))
        connection.execute(sqlalchemy.delete(STUDIES).where(STUDIES.c.study_name == name))
