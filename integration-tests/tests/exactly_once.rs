//! The promise, on a real Kafka: every input record takes effect exactly once in outputs, state and committed offsets.
//! The oracle recomputes all three from the input, independently of the engine.

use processor_integration_tests::scene::Scene;

#[test]
fn two_workers_process_everything_exactly_once() {
    let mut scene = Scene::new("smoke");
    scene.produce(20_000);
    let watch = scene.watch();
    let (one, two) = (scene.start("one"), scene.start("two"));
    scene.await_outputs(20_000, &[&one, &two]);
    scene.produce(10_000);
    scene.await_outputs(30_000, &[&one, &two]);
    one.stop().expect("a clean stop");
    two.stop().expect("a clean stop");
    assert_eq!(scene.settled(), 30_000);
    watch.finish(1);
    scene.verify(&["one", "two"]);
}
