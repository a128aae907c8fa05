CALL pg_temp.apply_quickly({projections}, {sources}, {shares}, {size}, '{{}}', '{{}}')
