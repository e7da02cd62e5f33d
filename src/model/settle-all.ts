/** Waits for all, then reports the first failure: a caller must not free a buffer, or close a file, that another part still uses. */
export async function settleAll(parts: readonly Promise<unknown>[]): Promise<void> {
  // Most often there is one: nothing is made for it.
  if (parts.length === 1) return void (await parts[0]);
  for (const result of await Promise.allSettled(parts)) if (result.status === 'rejected') throw result.reason;
}
