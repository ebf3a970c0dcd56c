-- Notes, the one resource of the sample service, and the rights to its schema.
set local lock_timeout = '5s';

revoke all on schema public from public;
grant usage on schema public to app_writer, app_reader, app_auditor;
-- At startup, the service compares the applied migrations with those of the binary.
grant select on _sqlx_migrations to app_writer, app_reader;

create table notes (
    tenant_id uuid not null,
    id uuid not null,
    status text not null check (status in ('draft', 'archived')),
    items jsonb not null check (jsonb_typeof(items) = 'array' and jsonb_array_length(items) between 1 and 50),
    priority text not null check (priority in ('standard', 'express')),
    remark text check (length(remark) between 1 and 500),
    email palisade.sealed,
    phone palisade.sealed,
    email_index palisade.blind_index,
    created_by text not null check (length(created_by) between 1 and 255),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    erased_at timestamptz,
    primary key (tenant_id, id),
    -- The service declares the problem of this constraint.
    constraint code_not_reserved check (not items @> '[{"code": "RESERVED"}]'),
    -- A note with an e-mail address has no index if the data keys of its tenant are destroyed.
    constraint index_needs_email check (email_index is null or email is not null),
    constraint erased_is_empty check (erased_at is null or num_nonnulls(remark, email, phone, email_index) = 0)
);
-- Each index serves one list, newest first, with its filter.
create index notes_by_time on notes (tenant_id, created_at desc, id desc) where erased_at is null;
create index notes_by_email on notes (tenant_id, email_index, created_at desc, id desc) where erased_at is null;
-- For the limit of express notes.
create index notes_express on notes (tenant_id)
    where priority = 'express' and status = 'draft' and erased_at is null;
select palisade.isolate_tenants('notes');

create trigger delete_row_key after delete on notes
    for each row execute function palisade.delete_row_key();

-- Erasure is final.
create function reject_change_of_erased_note() returns trigger
    language plpgsql
as $$
begin
    raise exception 'an erased note cannot be changed' using errcode = 'check_violation';
end
$$;
create trigger reject_change_of_erased_note before update on notes
    for each row when (old.erased_at is not null) execute function reject_change_of_erased_note();

revoke all on all functions in schema public from public;
grant select on notes to app_writer, app_reader;
grant insert, update (status, priority, remark, email, phone, email_index, updated_at, erased_at)
    on notes to app_writer;
