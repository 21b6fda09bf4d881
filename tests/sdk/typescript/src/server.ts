// Has the server stopped and started by whoever runs the tour, over its standard input
// and output. It knows nothing of what is called.

import { createInterface } from "node:readline";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has the server stopped, and returns when it is. */
export async function stop(): Promise<void> {
  console.log("stop the server");
  const { value } = await lines.next();
  if (value !== "stopped") throw new Error(`told: ${value}`);
}

/** Has the server started, and does not wait. */
export function start(): void {
  console.log("start the server");
}

/** The tour went well. */
export function complete(): void {
  console.log("the tour is complete");
  process.stdin.destroy();
}
