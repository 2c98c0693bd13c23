//! What the compiler says to those who hold it wrong: it should say what to do instead.

#[test]
fn mistakes_are_refused_with_advice() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
