//! The examples of the client crate, against an agent.

#[expect(dead_code, reason = "its main is for people")]
#[path = "../../crates/ioasd-client/examples/tour.rs"]
mod tour;

use crate::fixture::Agent;

#[test]
fn the_tour_works_as_it_says() {
    let agent = Agent::start();
    tour::tour(&agent.socket()).unwrap();
    agent.assert_clean();
}
