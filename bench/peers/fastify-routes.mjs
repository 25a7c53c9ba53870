// The routes of both Fastify peers: a plugin that is given a store.
//
// A store has keys() -> [{hash, partner}], addEvent(partner, event) -> id or
// null when the charger or vehicle is unknown, and charger(partner, id).
// Each of the three may answer at once or with a promise.
import { createHash } from 'node:crypto'

const KEYS_RELOAD_MS = 2000 // a revoked key stops working within this time
const DAY_MS = 86_400_000
const YEAR_2000_MS = Date.UTC(2000, 0, 1)
const BAD_TIMESTAMP = 'Parameter {timestamp} is invalid.'

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

/** Values are checked as they were sent: no coercion, nothing dropped. */
export const options = {
  logger: false,
  ajv: { customOptions: { coerceTypes: false, removeAdditional: false } }
}

export async function routes (app, { store }) {
  await authenticate(app, store)
  app.setErrorHandler((error, request, reply) => {
    const status = error.statusCode ?? 500
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
      const id = await store.addEvent(request.partner, event)
      if (id === null) {
        return reply.code(409).send({ message: 'No such charger or vehicle.' })
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
