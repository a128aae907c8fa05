-- The SHA-1 of a message (RFC 3174), for UUIDs of version 5; in PostgreSQL only an extension has it. It takes about 25
-- microseconds for 64 bytes.
CREATE FUNCTION sha1(message bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    m      constant bigint := 4294967295;
    padded bytea := message || '\x80'
                    || decode(repeat('00', 63 - (length(message) + 8) % 64), 'hex')
                    || int8send(length(message)::bigint * 8);
    h0     bigint := 1732584193;
    h1     bigint := 4023233417;
    h2     bigint := 2562383102;
    h3     bigint := 271733878;
    h4     bigint := 3285377520;
    a      bigint;
    b      bigint;
    c      bigint;
    d      bigint;
    e      bigint;
    w      bigint[];
    x      bigint;
    place  integer := 0;
BEGIN
    FOR block IN 1 .. length(padded) / 64 LOOP
        FOR t IN 1 .. 16 LOOP
            w[t] := (get_byte(padded, place)::bigint << 24) + (get_byte(padded, place + 1) << 16)
                    + (get_byte(padded, place + 2) << 8) + get_byte(padded, place + 3);
            place := place + 4;
        END LOOP;
        FOR t IN 17 .. 80 LOOP
            x := w[t - 3] # w[t - 8] # w[t - 14] # w[t - 16];
            w[t] := (x << 1 & m) | (x >> 31);
        END LOOP;
        a := h0;
        b := h1;
        c := h2;
        d := h3;
        e := h4;
        -- Five rounds at a time, so that the five words need not be exchanged in between.
        FOR t IN 1 .. 20 BY 5 LOOP
            e := e + ((a << 5 & m) | (a >> 27)) + (d # (b & (c # d))) + 1518500249 + w[t] & m;
            b := (b << 30 & m) | (b >> 2);
            d := d + ((e << 5 & m) | (e >> 27)) + (c # (a & (b # c))) + 1518500249 + w[t + 1] & m;
            a := (a << 30 & m) | (a >> 2);
            c := c + ((d << 5 & m) | (d >> 27)) + (b # (e & (a # b))) + 1518500249 + w[t + 2] & m;
            e := (e << 30 & m) | (e >> 2);
            b := b + ((c << 5 & m) | (c >> 27)) + (a # (d & (e # a))) + 1518500249 + w[t + 3] & m;
            d := (d << 30 & m) | (d >> 2);
            a := a + ((b << 5 & m) | (b >> 27)) + (e # (c & (d # e))) + 1518500249 + w[t + 4] & m;
            c := (c << 30 & m) | (c >> 2);
        END LOOP;
        FOR t IN 21 .. 40 BY 5 LOOP
            e := e + ((a << 5 & m) | (a >> 27)) + (b # c # d) + 1859775393 + w[t] & m;
            b := (b << 30 & m) | (b >> 2);
            d := d + ((e << 5 & m) | (e >> 27)) + (a # b # c) + 1859775393 + w[t + 1] & m;
            a := (a << 30 & m) | (a >> 2);
            c := c + ((d << 5 & m) | (d >> 27)) + (e # a # b) + 1859775393 + w[t + 2] & m;
            e := (e << 30 & m) | (e >> 2);
            b := b + ((c << 5 & m) | (c >> 27)) + (d # e # a) + 1859775393 + w[t + 3] & m;
            d := (d << 30 & m) | (d >> 2);
            a := a + ((b << 5 & m) | (b >> 27)) + (c # d # e) + 1859775393 + w[t + 4] & m;
            c := (c << 30 & m) | (c >> 2);
        END LOOP;
        FOR t IN 41 .. 60 BY 5 LOOP
            e := e + ((a << 5 & m) | (a >> 27)) + ((b & c) | (b & d) | (c & d)) + 2400959708 + w[t] & m;
            b := (b << 30 & m) | (b >> 2);
            d := d + ((e << 5 & m) | (e >> 27)) + ((a & b) | (a & c) | (b & c)) + 2400959708 + w[t + 1] & m;
            a := (a << 30 & m) | (a >> 2);
            c := c + ((d << 5 & m) | (d >> 27)) + ((e & a) | (e & b) | (a & b)) + 2400959708 + w[t + 2] & m;
            e := (e << 30 & m) | (e >> 2);
            b := b + ((c << 5 & m) | (c >> 27)) + ((d & e) | (d & a) | (e & a)) + 2400959708 + w[t + 3] & m;
            d := (d << 30 & m) | (d >> 2);
            a := a + ((b << 5 & m) | (b >> 27)) + ((c & d) | (c & e) | (d & e)) + 2400959708 + w[t + 4] & m;
            c := (c << 30 & m) | (c >> 2);
        END LOOP;
        FOR t IN 61 .. 80 BY 5 LOOP
            e := e + ((a << 5 & m) | (a >> 27)) + (b # c # d) + 3395469782 + w[t] & m;
            b := (b << 30 & m) | (b >> 2);
            d := d + ((e << 5 & m) | (e >> 27)) + (a # b # c) + 3395469782 + w[t + 1] & m;
            a := (a << 30 & m) | (a >> 2);
            c := c + ((d << 5 & m) | (d >> 27)) + (e # a # b) + 3395469782 + w[t + 2] & m;
            e := (e << 30 & m) | (e >> 2);
            b := b + ((c << 5 & m) | (c >> 27)) + (d # e # a) + 3395469782 + w[t + 3] & m;
            d := (d << 30 & m) | (d >> 2);
            a := a + ((b << 5 & m) | (b >> 27)) + (c # d # e) + 3395469782 + w[t + 4] & m;
            c := (c << 30 & m) | (c >> 2);
        END LOOP;
        h0 := h0 + a & m;
        h1 := h1 + b & m;
        h2 := h2 + c & m;
        h3 := h3 + d & m;
        h4 := h4 + e & m;
    END LOOP;
    RETURN substring(int8send(h0) FROM 5) || substring(int8send(h1) FROM 5) || substring(int8send(h2) FROM 5)
           || substring(int8send(h3) FROM 5) || substring(int8send(h4) FROM 5);
END
$$;

SELECT eventstore_set_owner('FUNCTION sha1');
