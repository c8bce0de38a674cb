"""Settings of `convert`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from peterrec.config.base import Config

RatingColumn = Literal["user", "item", "rating", "timestamp"]


class AmazonConfig(Config):
    """Which reviews of Amazon become events.

    All of it holds of what is written: what is left out for one reason can bring another user or item below its least
    number, which is then left out too, until nothing changes (for equal numbers of users and items: the k-core).
    """

    users: Literal["all", "shared"] = Field(
        default="all", description="all, or only those who have events in every domain"
    )
    min_rating: float = Field(default=0.0, ge=0.0, le=5.0, description="reviews with a lower rating are left out")
    min_user_events: PositiveInt = Field(default=1, description="events of a user in a domain, to be in it")
    min_item_events: PositiveInt = Field(default=1, description="events of an item in a domain, to be in it")
    columns: tuple[RatingColumn, ...] | None = Field(
        default=None,
        description="order of the columns `user`, `item`, `rating` and `timestamp` in CSV files without a header line; "
        "by default item ids tell by their form",
    )
    memory_limit: str = Field(default="2GB", description="of the embedded database that holds the events")

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        if self.columns is not None and sorted(self.columns) != ["item", "rating", "timestamp", "user"]:
            raise ValueError("columns names each of user, item, rating and timestamp once, in the order of the file")
        return self
