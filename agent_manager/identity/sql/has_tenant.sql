SELECT EXISTS (SELECT FROM identity_tenants WHERE id = %(tenant)s)
