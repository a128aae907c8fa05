-- A page, and how far the projections are that it was read from, seen in the same snapshot; where they are not far
-- enough there is one row without the page's.
SELECT applied.position, page.*
  FROM ({position}) AS applied (position)
  LEFT JOIN LATERAL (
{page}
       ) AS page ON applied.position >= %(at_least)s
