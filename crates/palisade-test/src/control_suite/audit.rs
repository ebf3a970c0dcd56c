//! The audit trail (LOG-05): each successful change appends exactly the event of its row.

use palisade::authz::QuotaClass;

use super::{Fixture, Objects};
use crate::{ACME, Fields, Operation, Reply, TestApp, query};

/// Calls every operation once and compares its events in the trail, which it finds by trace id. An
/// export is a read that leaves an event too.
pub async fn changes_have_their_event<F: Fixture>(app: &TestApp) {
    let acme = Objects::<F>::new(app, &ACME);
    let subject = app.service.person(&ACME, app.service.admin_role()).subject;
    for operation in Operation::all(app.service) {
        let object = acme.create(&operation).await;
        let reply = operation.call(&acme.admin, &object).await;
        assert!(reply.status.is_success(), "{operation}: {reply:#?}");
        let trace_id = reply.header("x-request-id").unwrap();
        let sql = format!(
            "select concat_ws(' ', action, subject, object) from palisade.audit_events
             where trace_id = '{trace_id}' and client <> '' order by 1"
        );
        let found = query(&app.database.owner, &sql).await;
        let row = operation.row;
        if operation.is_read() || row.quota == QuotaClass::Read {
            assert_eq!(found, Vec::<String>::new(), "{operation} is a read and must leave no audit event");
            continue;
        }
        let by_admin = format!("{} {subject} ", row.audit);
        let [event] = &found[..] else {
            panic!(
                "{operation} must append exactly one audit event, `{}`, and appended {found:?}: commit the change \
                 with the store of the kernel",
                row.audit
            );
        };
        let of = event.strip_prefix(&by_admin);
        assert!(of.is_some(), "{operation} must append `{by_admin}…`, and appended `{event}`");
        // An export names its kind.
        let changed = if row.quota == QuotaClass::Export { of.unwrap() } else { changed_object(&object, &reply) };
        assert!(
            of == Some(changed) && !changed.is_empty(),
            "{operation}: the audit event must name the object {changed:?}, and is `{event}`"
        );
        if row.quota != QuotaClass::Export {
            let logged = reply.events();
            let is_same = |event: &&Fields| event["event"] == "data_changed" && event["action"] == row.audit;
            let logged = logged.iter().find(is_same).map(|event| &*event["object"]);
            assert_eq!(logged, Some(changed), "{operation} must log the audit event that it appends");
        }
        let untaken = "select object from palisade.audit_events
                       where action = 'row_changed' and subject = 'operator:app_writer'";
        let untaken = query(&app.database.owner, untaken).await;
        assert_eq!(untaken, Vec::<String>::new(), "{operation} must not change rows in `create!`: no event names them");
    }
}

/// The created object, or else the one of the path.
fn changed_object<'a>(object: &'a str, reply: &'a Reply) -> &'a str {
    let created = reply.body["id"].as_str().filter(|_| reply.status == 201);
    created.unwrap_or(object)
}
