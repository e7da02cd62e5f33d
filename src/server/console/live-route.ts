/** `GET /api/v1/live?vm=NAME`: the live feed as server-sent events. */
import type { FastifyInstance } from 'fastify';
import { UnderstudyError } from '../../model/errors.ts';
import type { Access } from './access.ts';
import type { LiveFeed } from './live-feed.ts';
import { grantOfRequest } from './sessions.ts';

const WATCHERS_MAX = 32;
/** A page that is this far behind is cut off; it connects again by itself. */
const BACKLOG_BYTES_MAX = 8 << 20;
/** How soon a browser connects again after the server went away. */
const RETRY_MS = 1000;

export function addLive(app: FastifyInstance, { feed, access }: { feed: LiveFeed; access: Access }): void {
  app.get<{ Querystring: { vm?: string } }>('/api/v1/live', async (request, reply) => {
    if (feed.watching >= WATCHERS_MAX) {
      throw new UnderstudyError('state', 'RATE_LIMITED', `${feed.watching} pages are watching already`, 'Close some of them.');
    }
    const grant = grantOfRequest(request);
    const { raw } = reply;
    reply.hijack();
    raw.writeHead(200, { ...(reply.getHeaders() as Record<string, string>), 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    raw.write(`retry: ${RETRY_MS}\n\n`);
    const write = (text: string) => {
      if (raw.destroyed || raw.writableEnded) return;
      raw.write(text);
      if (raw.writableLength > BACKLOG_BYTES_MAX) raw.destroy();
    };
    const leave = await feed.add({
      vm: typeof request.query.vm === 'string' ? request.query.vm : null,
      admitted: () => access.holds(grant),
      send: (event, data) => write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`),
      ping: () => write(': \n\n'),
      end: () => raw.end(),
    });
    if (raw.destroyed) leave();
    else raw.once('close', leave);
  });
}
