/** The API as an OpenAPI 3.1 document, made from the same table as the routes. */

import { z } from 'zod';
import { OPERATIONS } from './contract.ts';
import type { Operation } from './contract.ts';
import { FAILURE, PROGRESS } from './shapes.ts';

const REF = { failure: { $ref: '#/components/schemas/Failure' } };

export function openApiDocument(version: string): object {
  const paths: Record<string, object> = {};
  for (const [name, operation] of Object.entries<Operation>(OPERATIONS)) {
    paths[`/api/v1/${name}`] = { post: describeOperation(name, operation) };
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Understudy',
      version,
      description: "A host's own API. Sizes are bytes, times ISO 8601 UTC, durations seconds.",
    },
    paths,
    components: { schemas: { Failure: schemaOf(FAILURE, 'output'), Progress: schemaOf(PROGRESS, 'output') } },
  };
}

function describeOperation(name: string, operation: Operation): object {
  const stream =
    operation.long === true
      ? {
          'application/x-ndjson': {
            schema: { type: 'string', description: 'lines {progress} or {item}, the last one {result} or {error}' },
          },
        }
      : {};
  const refused = { description: 'refused', content: { 'application/json': { schema: REF.failure } } };
  return {
    operationId: name,
    summary: operation.summary,
    requestBody: { required: true, content: { 'application/json': { schema: schemaOf(operation.params, 'input') } } },
    responses: {
      200: {
        description: 'done',
        content: { 'application/json': { schema: schemaOf(operation.result, 'output') }, ...stream },
      },
      default: refused,
    },
  };
}

function schemaOf(schema: z.ZodType, io: 'input' | 'output'): object {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: 'any' });
  return rest;
}
