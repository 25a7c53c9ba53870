// Fastify and node-postgres: node server.js, with DATABASE (a URL), PORT, POOL.
import Fastify from 'fastify'
import pg from 'pg'
import { options, routes } from '../fastify-routes.mjs'

const pool = new pg.Pool({
  connectionString: process.env.DATABASE,
  max: Number(process.env.POOL ?? 20)
})

// A statement with a name is prepared once on each connection.
const INSERT_EVENT = `
  INSERT INTO events (partner, type, charger_id, vehicle_id, state_of_charge, timestamp)
  SELECT c.partner, $2, c.id, v.id, $5, $6
    FROM chargers c JOIN vehicles v ON v.partner = c.partner
   WHERE c.partner = $1 AND c.id = $3 AND v.id = $4
  RETURNING id`

const store = {
  async keys () {
    return (await pool.query('SELECT hash, partner FROM api_keys')).rows
  },
  async charger (partner, id) {
    const { rows } = await pool.query({
      name: 'charger',
      text: 'SELECT body::text FROM chargers WHERE partner = $1 AND id = $2',
      values: [partner, id]
    })
    return rows.length === 1 ? rows[0].body : null
  },
  async addEvent (partner, event) {
    const { rows } = await pool.query({
      name: 'event',
      text: INSERT_EVENT,
      values: [
        partner, event.type, event.chargerId, event.vehicleId,
        event.stateOfCharge ?? null, new Date(event.timestamp)
      ]
    })
    return rows.length === 1 ? rows[0].id : null
  }
}

const app = Fastify(options)
app.register(routes, { store })
await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
