"""The documentation as a site: ``python -m tools.docs``.

The pages are in ``docs/``. What code says better than a page does is generated while the site is built: a page has a
line ``<!-- generated: cli -->``, and :mod:`tools.docs.hooks` puts the text of :mod:`tools.docs.reference` there.
"""
