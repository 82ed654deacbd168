"""The planted truth of the synthetic marketplace: items, users, and how they choose.

Shapes: I items, C clusters, B users, K interests of a user, S successors of an item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from feature_store.options import Options

COUNTRIES = ("BR", "DE", "FR", "GB", "IN", "JP", "MX", "US")
AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")
DAY_S = 86_400
USER_BLOCK = 2048  # fixed: the random streams of users are drawn block by block

# Names of streams of random numbers, so that no two uses share one.
_ITEMS, _TASTES, _USERS, _RATE, EVENTS, WORDS = range(1, 7)


class World(Options):
    """Everything that decides what is generated; fields are the options of the source.

    Probabilities: a click has logit `click_bias + click_affinity * a + click_price * p`, and a
    purchase, given a click, `buy_bias + buy_affinity * a + buy_price * p`; `a` in [0, 1] is the
    user's weight on the item's cluster at that time, `p` the item's log price, standardised.
    """

    seed: int = Field(0, ge=0, lt=1 << 32, description="Of all that is drawn.")
    users: int = Field(2_000, ge=1, description="How many users.")
    items: int = Field(1_000, ge=10, description="How many items.")
    clusters: int = Field(20, ge=1, description="Kinds of items, of which a user likes some.")
    events: float = Field(
        40.0, gt=0, description="Clicks and purchases of a user, about, on average."
    )
    days: int = Field(60, ge=1, description="Days that the log spans.")
    interests: int = Field(3, ge=1, description="Clusters that a user likes.")
    drift: float = Field(
        0.5, ge=0, le=1, description="How far interests have moved on the last day."
    )
    zipf: float = Field(
        0.8, ge=0, description="Popularity falls with rank to this power, of clusters and within."
    )
    traits: float = Field(1.0, ge=0, description="How strongly country and age tell interests.")
    session: float = Field(12.0, ge=1, description="Impressions in a session, on average.")
    successors: int = Field(3, ge=1, description="Items that tend to follow an item.")
    stickiness: float = Field(
        0.8, ge=0, lt=1, description="Share of impressions that follow the last click."
    )
    exploration: float = Field(
        0.1, gt=0, le=1, description="Share of impressions drawn from all items alike."
    )
    return_rate: float = Field(
        0.05, ge=0, le=1, description="Share of purchases that are returned."
    )
    click_bias: float = Field(-2.0, description="Of the logit of a click.")
    click_affinity: float = Field(4.0, description="What the user's interest adds to it.")
    click_price: float = Field(-0.3, description="What the log price, standardised, adds to it.")
    lists: bool = Field(
        False, description="Tell the list (a session) and the place of what was shown."
    )
    position_bias: float = Field(
        0.0, ge=0, description="Place k is looked at with a probability of k to minus this."
    )
    dear_first: float = Field(
        0.0,
        ge=0,
        le=1,
        description="How dear first places are, of what is drawn from all items.",
    )
    buy_bias: float = Field(-2.0, description="Of the logit of a purchase, given a click.")
    buy_affinity: float = Field(2.0, description="What the user's interest adds to it.")
    buy_price: float = Field(-0.5, description="What the log price, standardised, adds to it.")

    @model_validator(mode="after")
    def _check(self) -> World:
        if self.interests > self.clusters:
            raise ValueError(f"interests ({self.interests}) exceed clusters ({self.clusters})")
        if self.items < self.clusters * (self.successors + 1):
            need = self.clusters * (self.successors + 1)
            raise ValueError(f"items must be at least clusters x (successors + 1) = {need}")
        return self

    def random(self, stream: int, block: int = 0) -> np.random.Generator:
        """The generator of one block of one stream of random numbers."""
        return np.random.default_rng([self.seed, stream, block])

    def moved(self, second: np.ndarray) -> np.ndarray:
        """How far interests have moved from begin to end, `second` seconds into the log."""
        return self.drift * np.clip(second / (self.days * DAY_S), 0.0, 1.0)

    def click_probability(self, affinity: np.ndarray, price: np.ndarray) -> np.ndarray:
        """P(click | impression); `price` is the standardised log price."""
        return _logistic(
            self.click_bias + self.click_affinity * affinity + self.click_price * price
        )

    def buy_probability(self, affinity: np.ndarray, price: np.ndarray) -> np.ndarray:
        """P(purchase | click); `price` is the standardised log price."""
        return _logistic(self.buy_bias + self.buy_affinity * affinity + self.buy_price * price)

    def tilt(self, place: int) -> float:
        """In [-1, 1]: how much what is drawn from all items is dear at a place, from 1."""
        return self.dear_first * (2.0 / place - 1.0)

    def expected_click_rate(self) -> float:
        """About which share of impressions is clicked, from draws of users and prices."""
        random = self.random(_RATE)
        weights = random.dirichlet(np.full(self.interests, _CONCENTRATION), 4096)
        if self.drift:
            other = random.dirichlet(np.full(self.interests, _CONCENTRATION), 4096)
            moved = self.drift * random.random((4096, 1))
            weights = (1 - moved) * weights + moved * other
        price = random.standard_normal((4096, 1))
        inside = (weights * self.click_probability(weights, price)).sum(axis=1).mean()
        outside = self.click_probability(np.zeros(1), np.zeros(1))[0]
        return float((1 - self.exploration) * inside + self.exploration * outside)


_CONCENTRATION = 1.5  # of the Dirichlet that spreads a user's interests


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


@dataclass(frozen=True)
class Items:
    """The catalogue as arrays over items; item i has id i + 1.

    The items of a cluster stand on a ring: the successors of an item are those behind it.

    Attributes:
        cluster: [I] cluster of each item.
        rank: [I] popularity rank within the cluster, 0 is the most popular.
        place: [I] place on the cluster's ring.
        price: [I] list price.
        log_price: [I] its logarithm, standardised over all items.
        ranked, ring: [I] items, cluster after cluster, in order of rank and of place.
        starts, sizes: [C] where a cluster begins in these two, and how many items it has.
        popularity: [most + 1] cumulative (rank + 1) ** -zipf: the mass of the first n ranks at n.
        follow: [S] probability of each successor, nearest first.
        by_price, price_rank: [I] items from the cheapest, and where each stands among them.
    """

    cluster: np.ndarray
    rank: np.ndarray
    place: np.ndarray
    price: np.ndarray
    log_price: np.ndarray
    ranked: np.ndarray
    ring: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    popularity: np.ndarray
    follow: np.ndarray
    by_price: np.ndarray
    price_rank: np.ndarray
    stickiness: float
    exploration: float
    zipf: float

    @classmethod
    def draw(cls, world: World) -> Items:
        """The items of a world."""
        random = world.random(_ITEMS)
        count = world.items
        by_rank = random.permutation(count)  # ids tell nothing of cluster or popularity
        cluster, rank = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        cluster[by_rank] = np.arange(count) % world.clusters
        rank[by_rank] = np.arange(count) // world.clusters
        place = np.empty(count, dtype=np.int64)
        place[np.lexsort([random.random(count), cluster])] = rank[np.lexsort([rank, cluster])]
        level = random.normal(3.0, 0.8, world.clusters)
        price = np.exp(level[cluster] + random.normal(0.0, 0.5, count))
        return cls.arrange(world, cluster, rank, place, np.maximum(price.round(2), 0.01))

    @classmethod
    def arrange(
        cls,
        world: World,
        cluster: np.ndarray,
        rank: np.ndarray,
        place: np.ndarray,
        price: np.ndarray,
    ) -> Items:
        """The items whose clusters, ranks, places and prices are given."""
        sizes = np.bincount(cluster, minlength=world.clusters)
        log_price = np.log(price)
        mass = np.cumsum(np.arange(1.0, sizes.max() + 1) ** -world.zipf)
        follow = 0.5 ** np.arange(world.successors)
        by_price = np.argsort(price, kind="stable")
        return cls(
            cluster=cluster,
            rank=rank,
            place=place,
            price=price,
            log_price=(log_price - log_price.mean()) / max(log_price.std(), 1e-9),
            ranked=np.lexsort([rank, cluster]),
            ring=np.lexsort([place, cluster]),
            starts=np.cumsum(sizes) - sizes,
            sizes=sizes,
            popularity=np.concatenate([[0.0], mass]),
            follow=follow / follow.sum(),
            by_price=by_price,
            price_rank=np.argsort(by_price),
            stickiness=world.stickiness,
            exploration=world.exploration,
            zipf=world.zipf,
        )

    def successors(self, items: np.ndarray) -> np.ndarray:
        """The successors [n, S] of `items` [n], the most probable first."""
        cluster = self.cluster[items][:, None]
        steps = 1 + np.arange(len(self.follow))
        place = (self.place[items][:, None] + steps) % self.sizes[cluster]
        return self.ring[self.starts[cluster] + place]

    def sample(
        self,
        random: np.random.Generator,
        cluster: np.ndarray,
        last: np.ndarray,
        tilt: float = 0.0,
    ) -> np.ndarray:
        """One item [n] for each session's cluster [n] and last click [n] (-1: none yet).

        With a tilt some of what is drawn from all items is the dearer of two, or the cheaper where
        it is negative.
        """
        count = len(cluster)
        sizes = self.sizes[cluster]
        mass = random.random(count) * self.popularity[sizes]
        rank = np.searchsorted(self.popularity, mass, side="right") - 1
        chosen = self.ranked[self.starts[cluster] + np.minimum(rank, sizes - 1)]
        follows = (last >= 0) & (random.random(count) < self.stickiness)
        step = np.searchsorted(np.cumsum(self.follow)[:-1], random.random(count), side="right")
        next_ones = self.successors(np.maximum(last, 0))[np.arange(count), step]
        chosen = np.where(follows, next_ones, chosen)
        anything = random.integers(0, len(self.cluster), count)
        if tilt:
            pair = self.price_rank[anything], random.integers(0, len(self.cluster), count)
            extreme = self.by_price[np.maximum(*pair) if tilt > 0 else np.minimum(*pair)]
            anything = np.where(random.random(count) < abs(tilt), extreme, anything)
        return np.where(random.random(count) < self.exploration, anything, chosen)

    def probability(
        self, items: np.ndarray, cluster: np.ndarray, last: np.ndarray, tilt: float = 0.0
    ) -> np.ndarray:
        """The probability that `sample` gives to `items`; the arguments are broadcast."""
        of_item = self.cluster[items]
        popular = (1.0 + self.rank[items]) ** -self.zipf / self.popularity[self.sizes[cluster]]
        popular = np.where(of_item == cluster, popular, 0.0)
        from_item = np.maximum(last, 0)
        step = (self.place[items] - self.place[from_item]) % self.sizes[of_item] - 1
        near = (of_item == self.cluster[from_item]) & (step >= 0) & (step < len(self.follow))
        follow = np.where(near, self.follow[np.clip(step, 0, len(self.follow) - 1)], 0.0)
        sticky = np.where(last >= 0, self.stickiness, 0.0)
        guided = sticky * follow + (1.0 - sticky) * popular
        count = len(self.cluster)
        dear = (2 * self.price_rank[items] + 1) / count - 1.0
        return (1.0 - self.exploration) * guided + self.exploration * (1.0 + tilt * dear) / count


@dataclass(frozen=True)
class Users:
    """A block of users; `first` user of the block has id `first + 1`.

    Attributes:
        country, age: [B] indices into COUNTRIES and AGE_BANDS.
        interests: [B, K] clusters, all different.
        begin, end: [B, K] their weights on the first and, with drift 1, on the last day.
        activity: [B] how active each is, 1 on average.
    """

    first: int
    country: np.ndarray
    age: np.ndarray
    interests: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    activity: np.ndarray

    @classmethod
    def draw(cls, world: World, block: int) -> Users:
        """Users `block * USER_BLOCK` and following."""
        tastes = world.random(_TASTES)
        by_country = tastes.standard_normal((len(COUNTRIES), world.clusters))
        by_age = tastes.standard_normal((len(AGE_BANDS), world.clusters))
        first = block * USER_BLOCK
        count = min(USER_BLOCK, world.users - first)
        random = world.random(_USERS, block)
        country = random.integers(0, len(COUNTRIES), count)
        age = random.integers(0, len(AGE_BANDS), count)
        liking = -world.zipf * np.log1p(np.arange(world.clusters))
        liking = liking + world.traits * (by_country[country] + by_age[age])
        # adding Gumbel noise and taking the top K draws K clusters without repeats
        noisy = liking + random.gumbel(size=(count, world.clusters))
        spread = np.full(world.interests, _CONCENTRATION)
        return cls(
            first=first,
            country=country,
            age=age,
            interests=np.argsort(-noisy, axis=1)[:, : world.interests],
            begin=random.dirichlet(spread, count),
            end=random.dirichlet(spread, count),
            activity=random.gamma(4.0, 0.25, count),
        )

    def weights(self, rows: np.ndarray, moved: np.ndarray) -> np.ndarray:
        """Interest weights [n, K] of users `rows`; `moved` [n] in [0, 1] goes from begin to end."""
        share = moved[:, None]
        return (1 - share) * self.begin[rows] + share * self.end[rows]

    def affinity(self, rows: np.ndarray, cluster: np.ndarray, moved: np.ndarray) -> np.ndarray:
        """Weight [n] of each user on a cluster [n]; 0 for clusters that are no interest."""
        likes = self.interests[rows] == cluster[:, None]
        return (self.weights(rows, moved) * likes).sum(axis=1)
