SELECT a.fate,
       EXISTS (SELECT 1 FROM wanted w JOIN log l ON l.id = w.id WHERE w.append = a.number) AS is_found,
       count(*)
  FROM appends a
 GROUP BY 1, 2
