//! The control suite of the test kit, for every operation of the sample service. `access_matrix.txt`
//! is its reviewed table of callers and operations.

palisade_test::control_suite!(crate::support::SERVICE, crate::support::NoteFixture, "tests/suite/access_matrix.txt");
