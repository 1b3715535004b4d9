"""pydantic-graph 2: no events, no pause, no snapshot."""

import asyncio
from itertools import pairwise

from _timing import Growth, Timing, main
from pydantic_graph import GraphBuilder, StepContext, reduce_list_append


def chain(steps, nap=0):
    builder = GraphBuilder(state_type=dict, input_type=int, output_type=int)

    async def step(ctx: StepContext[dict, None, int]) -> int:
        if nap:
            await asyncio.sleep(nap)

        return ctx.inputs

    made = [builder.step(node_id=f"s{n}")(step) for n in range(steps)]
    builder.add(builder.edge_from(builder.start_node).to(made[0]))
    for before, after in pairwise(made):
        builder.add(builder.edge_from(before).to(after))

    builder.add(builder.edge_from(made[-1]).to(builder.end_node))
    return builder.build()


async def w1(t: Timing) -> None:
    graph = chain(20)
    await t.cpu("step, nobody observes", lambda: graph.run(state={}, inputs=1), 30, 20)

    async def iterated():
        async with graph.iter(state={}, inputs=1) as run:
            async for _ in run:
                pass

    await t.cpu("step, observed", iterated, 30, 20)


async def w2(t: Timing) -> None:
    builder = GraphBuilder(state_type=dict, input_type=int, output_type=list)

    async def spread(ctx: StepContext[dict, None, int]) -> list[int]:
        return list(range(100))

    async def branch(ctx: StepContext[dict, None, int]) -> int:
        return ctx.inputs

    first, each = builder.step(node_id="spread")(spread), builder.step(node_id="branch")(branch)
    join = builder.join(reduce_list_append, initial_factory=list)
    builder.add(
        builder.edge_from(builder.start_node).to(first),
        builder.edge_from(first).map().to(each),
        builder.edge_from(each).to(join),
        builder.edge_from(join).to(builder.end_node),
    )
    graph = builder.build()
    await t.cpu("branch of 100 + join", lambda: graph.run(state={}, inputs=1), 8, 100)


async def w3(t: Timing) -> None:
    graph = chain(10, 0.001)
    growth = Growth()
    await t.cpu(
        "1,000 x 10 naps", lambda: asyncio.gather(*[graph.run(state={}, inputs=1) for _ in range(1000)]), 1, unit="s"
    )
    t.put("RSS growth", "MB", growth.peak_mb())


main({"W1": w1, "W2": w2, "W3": w3}, "pydantic-graph", "pydantic")
