CREATE INDEX log_position ON log (position);
CREATE INDEX log_id ON log (id);
CREATE INDEX wanted_id ON wanted (id);
CREATE INDEX wanted_append ON wanted (append);
