//! Tests of the latch over real threads. They lie apart because the model checker compiles the latch alone.

use super::latch::latch;

#[actix_rt::test]
async fn outcomes_come_in_the_order_of_the_seats_from_any_thread() {
    for _ in 0..200 {
        let (seats, all) = latch(8);
        let threads: Vec<_> = seats
            .into_iter()
            .enumerate()
            .map(|(place, seat)| std::thread::spawn(move || seat.fill(place * 10)))
            .collect();
        let outcomes = all.await;
        assert_eq!(outcomes, (0..8).map(|place| Some(place * 10)).collect::<Vec<_>>());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[actix_rt::test]
async fn a_dropped_seat_counts_as_failed() {
    let (mut seats, all) = latch(2);
    drop(seats.pop());
    seats.pop().unwrap().fill("done");
    assert_eq!(all.await, [Some("done"), None]);
}

#[actix_rt::test]
async fn a_latch_without_seats_is_ready() {
    let (_, all) = latch::<()>(0);
    assert_eq!(all.await, []);
}
