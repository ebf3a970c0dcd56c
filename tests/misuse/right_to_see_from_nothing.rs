//! E0423: cannot initialize a tuple struct which contains private fields
use service::authz::MaySee;

fn see() -> MaySee {
    MaySee(())
}

fn main() {
    let _ = see;
}
