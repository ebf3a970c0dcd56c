-- What was answered to requests with an Idempotency-Key (control INPUT-10). A row is written in the
-- transaction of the change it answers for: there is never one without the other.

create table idempotency_keys (
    tenant_id uuid not null,
    subject text not null check (length(subject) between 1 and 255),
    client text not null check (length(client) between 1 and 255),
    operation text not null,
    key text not null check (length(key) between 1 and 255),
    -- A keyed digest of what was asked: path and body.
    fingerprint bytea not null check (length(fingerprint) = 32),
    -- What was answered: a 201 with this body and Location. Null once what it told of was erased.
    body text,
    location text,
    created_at timestamptz not null,
    expires_at timestamptz not null check (expires_at > created_at),
    primary key (tenant_id, subject, client, operation, key)
);
create index idempotency_keys_by_expiry on idempotency_keys (tenant_id, expires_at);

alter table idempotency_keys enable row level security;
alter table idempotency_keys force row level security;
create policy tenant_isolation on idempotency_keys
    using (tenant_id = current_tenant()) with check (tenant_id = current_tenant());

-- An answer is never changed, only emptied; an expired one is deleted, by whoever of its tenant writes next.
create function is_only_emptied() returns trigger
    language plpgsql
as $$
begin
    if new.body is not null or new.location is not null then
        raise exception 'an answer is only emptied' using errcode = 'check_violation';
    end if;
    return new;
end
$$;
create trigger is_only_emptied before update on idempotency_keys
    for each row execute function is_only_emptied();

grant select, insert, delete on idempotency_keys to app_writer;
grant update (body, location) on idempotency_keys to app_writer;
