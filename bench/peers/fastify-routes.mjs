// The routes of both Fastify peers: a plugin that is given a store.
//
// A store has keys() -> [{hash, partner}], charger(partner, id), addEvent(partner, event) -> id or
// null when nothing was added, sameEvent(partner, event) -> {id, stateOfCharge} of the recorded event
// of that identity, or null, and close(). Each of them may answer at once or with a promise.
import { createHash, randomUUID } from 'node:crypto'

const KEYS_RELOAD_MS = 2000 // a revoked key stops working within this time
const DAY_MS = 86_400_000
const MOST_IN_WINDOW = 1_000_000
const WINDOW_MS = 1000
const YEAR_2000_MS = Date.UTC(2000, 0, 1)
const BAD_TIMESTAMP = 'Parameter {timestamp} is invalid.'
const UNKNOWN = 'No such charger or vehicle.'
const OTHER_VALUES = 'This event is recorded with another {stateOfCharge}.'

const ID = { type: 'string', pattern: '^[A-Za-z0-9._~*+@:-]{1,128}$' }

const EVENT = {
  type: 'object',
  required: ['type', 'chargerId', 'vehicleId'],
  additionalProperties: false,
  properties: {
    type: {
      enum: [
        'VEHICLE_CONNECTED', 'VEHICLE_DISCONNECTED', 'VEHICLE_CHARGE_STARTED',
        'VEHICLE_CHARGE_STOPPED', 'VEHICLE_CHARGE_UPDATED'
      ]
    },
    chargerId: ID,
    vehicleId: ID,
    stateOfCharge: { type: 'number', minimum: 0, maximum: 100 },
    timestamp: { type: 'string', format: 'date-time' }
  },
  if: { properties: { type: { const: 'VEHICLE_CHARGE_UPDATED' } } },
  then: { required: ['stateOfCharge'] }
}

const CREATED = { type: 'object', properties: { id: { type: 'string' } } }

/** One line of JSON for each request, gathered and written behind, as pino advises for speed. */
function logging ({ LogController, pino }) {
  class OneLine extends LogController {
    incomingRequest () {}

    requestCompleted (error, request, reply) {
      const line = {
        method: request.method,
        route: request.routeOptions.url ?? 'other',
        status: reply.statusCode,
        ms: reply.elapsedTime
      }
      if (error) {
        reply.log.error({ ...line, err: error }, 'request')
      } else {
        reply.log.info(line, 'request')
      }
    }
  }
  const stream = pino.destination({ dest: 2, sync: false, minLength: 4096, periodicFlush: 1000 })
  return {
    logger: { base: undefined, stream },
    logController: new OneLine({ requestIdLogLabel: 'request_id' }),
    genReqId: () => randomUUID()
  }
}

/** Values are checked as they were sent: no coercion, nothing dropped. */
const ajv = { customOptions: { coerceTypes: false, removeAdditional: false } }

/** Serve a store on PORT until SIGTERM. The libraries lie beside the servers, not beside this. */
export async function serve (store, libraries) {
  const app = libraries.Fastify({ ...logging(libraries), ajv })
  app.register(routes, { store, ...libraries })
  app.addHook('onClose', () => store.close())
  process.once('SIGTERM', () => app.close())
  await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
}

async function routes (app, { store, rateLimit, prometheus }) {
  app.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id)
    done()
  })
  await authenticate(app, store)
  await limit(app, rateLimit)
  measure(app, prometheus)
  app.setErrorHandler((error, request, reply) => {
    const status = error.statusCode ?? 500
    if (status >= 500) {
      request.log.error({ err: error }, 'failed')
    }
    reply.code(status).send({ message: status < 500 ? error.message : 'Internal Server Error' })
  })

  app.post('/events', {
    schema: { body: EVENT, response: { 201: CREATED } },
    handler: async (request, reply) => {
      const { timestamp, ...event } = request.body
      const now = Date.now()
      event.timestamp = timestamp === undefined ? now : Date.parse(timestamp)
      if (!(event.timestamp >= YEAR_2000_MS && event.timestamp <= now + DAY_MS)) {
        return reply.code(400).send({ message: BAD_TIMESTAMP })
      }
      let id = await store.addEvent(request.partner, event)
      if (id === null) {
        const recorded = await store.sameEvent(request.partner, event)
        if (recorded === null) {
          return reply.code(409).send({ message: UNKNOWN })
        }
        if (recorded.stateOfCharge !== (event.stateOfCharge ?? null)) {
          return reply.code(409).send({ message: OTHER_VALUES })
        }
        id = recorded.id
      }
      return reply.code(201).send({ id })
    }
  })

  app.get('/chargers/:id', async (request, reply) => {
    const body = await store.charger(request.partner, request.params.id)
    if (body === null) {
      return reply.code(404).send({ message: 'Not Found' })
    }
    return reply.type('application/json').send(body)
  })
}

/** Holds the hashes of all keys in memory and looks for changes now and then. */
async function authenticate (app, store) {
  let partners = new Map()
  const reload = async () => {
    partners = new Map((await store.keys()).map(({ hash, partner }) => [hash, partner]))
  }
  await reload()
  setInterval(reload, KEYS_RELOAD_MS).unref()

  app.decorateRequest('partner', null)
  app.addHook('onRequest', async (request, reply) => {
    const key = request.headers['x-api-key'] ?? ''
    const partner = partners.get(createHash('sha256').update(key).digest('hex'))
    if (partner === undefined) {
      return reply.code(403).send({ message: 'Forbidden' })
    }
    request.partner = partner
  })
}

/** A limit for each key, as high as that of everybody who is measured. */
async function limit (app, rateLimit) {
  await app.register(rateLimit, {
    max: MOST_IN_WINDOW,
    timeWindow: WINDOW_MS,
    keyGenerator: request => request.headers['x-api-key']
  })
}

/** Counts requests and how long they take, for Prometheus. */
function measure (app, prometheus) {
  const seconds = new prometheus.Histogram({
    name: 'request_seconds',
    help: 'Time to the answer, by route and status.',
    labelNames: ['method', 'route', 'status']
  })
  app.addHook('onResponse', (request, reply, done) => {
    const route = request.routeOptions.url ?? 'other'
    seconds.labels(request.method, route, reply.statusCode).observe(reply.elapsedTime / 1000)
    done()
  })
  app.get('/metrics', async (request, reply) => {
    reply.type(prometheus.register.contentType)
    return prometheus.register.metrics()
  })
}
