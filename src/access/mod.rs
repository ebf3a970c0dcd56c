//! Access rules of this API: actions with their rows of the route matrix, scopes, roles, and rules
//! for the state of objects.
//!
//! [`ACCESS`] is everything that `authz` needs to know about orders and billing. `store` and `api`
//! take permits of the [`actions`].

pub mod actions;
mod object_rules;
pub mod roles;
pub mod scopes;

use palisade::authz::{Access, Rights};

/// Everything that this service declares about access.
pub static ACCESS: Access =
    Access { actions: &[actions::ORDERS], rights: Rights { scopes: &scopes::ALL, roles: roles::TABLE } };
