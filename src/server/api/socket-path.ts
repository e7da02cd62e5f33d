/**
 * Where a host's server listens, and how to reach it when its path is longer than a Unix socket address can hold
 * (107 bytes): the folder is opened, and the socket named relative to it through `/proc/self/fd`.
 */

import { closeSync, openSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

const SOCKET_ADDRESS_BYTES_MAX = 107;
export const SOCKET_NAME = 'server.sock';

export function socketPath(dataFolder: string): string {
  return join(dataFolder, SOCKET_NAME);
}

/**
 * The address to bind or connect to now. `release` frees it again: at once after connecting, at the end after
 * binding.
 */
export function openSocketAddress(path: string): { address: string; release(): void } {
  if (Buffer.byteLength(path) <= SOCKET_ADDRESS_BYTES_MAX) return { address: path, release: () => undefined };
  const folder = openSync(dirname(path), 'r');
  return { address: `/proc/self/fd/${folder}/${basename(path)}`, release: () => closeSync(folder) };
}
