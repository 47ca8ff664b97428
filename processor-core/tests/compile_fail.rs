//! What the compiler refuses, and what it says: a user's first mistakes must explain themselves.

#[test]
fn mistakes_do_not_compile_and_explain_themselves() {
    trybuild::TestCases::new().compile_fail("tests/compile/*.rs");
}
