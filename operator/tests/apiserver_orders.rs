//! Order never matters: the quickstart's resources are applied and deleted in every order, each in a namespace of its own, and
//! all of them end in the same state, with conditions on the way that say what is missing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod apiserver_support;
mod orders_support;

use apiserver_support::World;
use kube::Client;
use orders_support::{Order, documents, permutations};
use std::time::{Duration, Instant};

/// How long every order may take until all is said and done.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn every_order_of_applying_and_deleting_ends_in_the_same_state() {
    let world = World::new();
    orders_support::cluster(&world);
    let _operator = world.operator("orders");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let outcome = runtime.block_on(async { tokio::spawn(orders(world.client().await)).await });
    assert!(outcome.is_ok(), "{outcome:?}\n{}", world.everything());
}

async fn orders(client: Client) {
    let documents = documents();
    let all = permutations(documents.len());
    assert_eq!(all.len(), 24);
    let mut orders = Vec::new();
    for (number, order) in all.iter().enumerate() {
        let order = Order::new(&client, &documents, order.clone(), number).await;
        order.apply().await;
        orders.push(order);
    }
    let started = Instant::now();
    loop {
        let mut states = Vec::new();
        for order in &orders {
            states.push(order.state().await);
        }
        let odd = orders.iter().zip(&states).skip(1).find_map(|(order, state)| {
            orders_support::difference(&states[0], state).map(|text| format!("{}: {text}", order.told()))
        });
        let unfinished = states.iter().find_map(orders_support::unfinished);
        match odd.or(unfinished) {
            None => break,
            Some(text) => assert!(started.elapsed() < LIMIT, "{text}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    println!(
        "24 orders are in the same state {:.1} s after the last was applied",
        started.elapsed().as_secs_f64()
    );

    // The other way round: what was applied first in one order is deleted last in it.
    let started = Instant::now();
    for order in &orders {
        order.delete().await;
    }
    for order in &orders {
        while let Some(left) = order.left().await {
            assert!(started.elapsed() < LIMIT, "{}: {left} is still there", order.told());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    println!("24 orders are deleted after {:.1} s", started.elapsed().as_secs_f64());
}
