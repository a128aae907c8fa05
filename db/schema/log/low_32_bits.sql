-- The low 32 bits of a position as a signed integer: the second key of an advisory lock.
CREATE FUNCTION low_32_bits(value bigint) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (((value & 4294967295) # 2147483648) - 2147483648)::integer;

SELECT eventstore_set_owner('FUNCTION low_32_bits');
