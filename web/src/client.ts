/** The worker as the page sees it: calls that can be cancelled by ending the worker. */

import type { Calls, Parts, Reply } from "./protocol";
import { UserError } from "./tensor";
import PageWorker from "./worker?worker&inline";

/** The work was cancelled by the user. */
export class Cancelled extends Error {}

export type ProgressListener = (stage: string, done: number, total: number) => void;

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export class Client {
  private worker: Worker | null = null;
  private waiting = new Map<number, Waiting>();
  private next = 0;

  constructor(
    private readonly facts: string,
    private readonly parts: Parts,
    private readonly progress: ProgressListener,
  ) {}

  /** Whether there is a worker that has an image. */
  get isRunning(): boolean {
    return this.worker !== null;
  }

  /** Call the worker; start it first where there is none. */
  async call<K extends keyof Calls>(call: K, ...args: Calls[K]["args"]): Promise<Calls[K]["result"]> {
    if (this.worker === null) {
      this.worker = new PageWorker();
      this.worker.onmessage = (event: MessageEvent<Reply>) => this.receive(event.data);
      this.worker.onerror = (event) => this.end(new Error(event.message || "the worker of the page ended"));
      await this.send("start", [this.facts, this.parts]);
    }
    return this.send(call, args);
  }

  /** End the worker and all that it does. */
  end(reason: Error = new Cancelled()): void {
    this.worker?.terminate();
    this.worker = null;
    for (const { reject } of this.waiting.values()) reject(reason);
    this.waiting.clear();
  }

  private send<K extends keyof Calls>(call: K, args: Calls[K]["args"]): Promise<Calls[K]["result"]> {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.worker!.postMessage({ id, call, args });
    });
  }

  private receive(reply: Reply): void {
    if (reply.kind === "progress") {
      this.progress(reply.stage, reply.done, reply.total);
      return;
    }
    const { resolve, reject } = this.waiting.get(reply.id) ?? {};
    this.waiting.delete(reply.id);
    if (reply.kind === "result") resolve?.(reply.value);
    else reject?.(reply.isUser ? new UserError(reply.message) : new Error(reply.message));
  }
}
