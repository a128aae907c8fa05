"""Values that hypothesis makes up: what the log must take, and give back equal."""

from __future__ import annotations

from hypothesis import strategies as st


def texts(min_size: int = 0, max_size: int | None = 40) -> st.SearchStrategy[str]:
    """Texts that PostgreSQL can store: any Unicode but NUL characters and lone surrogates."""
    characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.text(characters, min_size=min_size, max_size=max_size)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts(max_size=10), inner, max_size=5),
    max_leaves=12,
)
"""Any JSON value."""
