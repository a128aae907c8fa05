"""Links in the documentation lead somewhere."""

from __future__ import annotations

import pytest
from support.environment import TREE
from support.pages import PAGES, anchors, links

pytestmark = pytest.mark.any_server


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (TREE / page).parent / path if path else TREE / page
        assert target.resolve().is_relative_to(TREE), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, left = set(), ["README.md"]
    while left:
        page = left.pop()
        if page not in reached:
            reached.add(page)
            paths = [link.partition("#")[0] for link in links(page) if "://" not in link]
            targets = [((TREE / page).parent / path).resolve() for path in paths]
            left += [name for name in (str(target.relative_to(TREE)) for target in targets) if name in PAGES]
    assert set(PAGES) - reached == {"docs/index.md"}  # the first page of the site, as the README is of the repository
