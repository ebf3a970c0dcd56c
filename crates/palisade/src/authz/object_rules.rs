//! Object rules: the state that each action requires of the object it changes (AUTHZ-04).
//!
//! [`Permit::for_object`](super::Permit::for_object) applies them to the loaded object, after it
//! has compared tenants. A permit cannot be limited to an object type without a rule.

use super::Change;

/// The rule of action `Self` for an object of type `R`.
#[diagnostic::on_unimplemented(message = "`{Self}` has no object rule for `{R}`")]
pub trait ObjectRule<R>: Change {
    /// Whether the object's state allows the action.
    fn state_allows(object: &R) -> bool;
}

/// Declares object rules.
#[macro_export]
macro_rules! object_rules {
    ($($action:ident on $object:ident if |$o:ident| $allowed:expr;)+) => {$(
        impl $crate::authz::ObjectRule<$object> for $action {
            fn state_allows($o: &$object) -> bool {
                $allowed
            }
        }
    )+};
}
